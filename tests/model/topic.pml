/* A topic: NP publishers with a ring of D cells each (1 or 2), NREL reliable subscribers, for whom publishers wait, and
   NANY others. When may the chunk of a message be released, and does the message arrive? zerocp.h, sections >>topics,
   >>publish and >>receive, step by step, with every interleaving but no weak memory. Who sleeps and who wakes is
   topic_wake.pml's. Run by ./spin; by hand:
     spin -a -DHISTORY topic.pml && gcc -w -O1 -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -o pan pan.c && ./pan -m2000000 -n
   CRASHES of all clients and sweepers are killed, at any step; whoever lives leaves when he likes. Each publisher has
   PUBS messages, each subscriber looks TAKES times. Each message has a chunk of its own, because no token is used
   twice: whoever reads a chunk that is free again has been given a wrong one. The record's protocol is chunk.pml's, and
   takes a step or two here. Steps that write a word that nobody reads yet are one with the next. What there may be
   besides:
     -DHISTORY   who comes later begins with what is there
     -DKEEPS     subscribers make a hold of their own of a message
     -DSTRANGER  entry 0, when it is free, gets a publisher of another topic
     -DLIVES     a process goes on after it has closed its publisher, and drains it
     -DNEEDY     sweeps may count reliable subscribers and claims alone
     -DALONE     with SWEEPERS=2: nobody recovers all; somebody sweeps publisher 0, then the subscriber that has read
                 all of it does, if he finds the slot's lock free
   Mutants, each must fail: -DM1 no second look, M2 the chunk is released while its cell shows it, M3 the publisher
   looks at the claims before GONE, M4 the sweep forgets what is unread, M5 it does not look at the claims, M6 it looks
   before GONE, M7 the publisher does not look at the claims, M8 the claim ends before the hold of one's own begins, M9
   the sweep of a subscriber leaves its cursor, M10 a slot is clean while something stays, M11 a cell is written anew
   that is not GONE, M12 the sweep makes no cell GONE, M13 the second look leaves out the state, M14 nobody looks at
   attention after GONE, M15 who has no cursor has read all, to the publisher, M16 the same to the sweep, M17 recovering
   goes through the clients once, M18 the sweeper does not look again when it has given the slot's lock back, M19 who
   subscribes does not raise attention, M20 a cell is emptied, and not GONE, M21 the second look begins with the state,
   M22 what is put aside is not held, M23 the entry is free while something is put aside, M24 who subscribes raises
   attention before his entry is there, M25 the sweeper tells only of what it has ended itself. */
#ifndef NP
#define NP 1
#endif
#ifndef NREL
#define NREL 1
#endif
#ifndef NANY
#define NANY 0
#endif
#define NS (NREL+NANY)
#ifndef D
#define D 1
#endif
#ifndef PUBS
#define PUBS 2
#endif
#ifndef TAKES
#define TAKES 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SWEEPERS
#define SWEEPERS 1
#endif
#define GONE 64                  /* is added to what a cell shows */
#define NUMBER(l) ((l)&63)
#define SHOWS(l) ((l)!=0 && (l)<GONE)
#define CHUNK(p,n) ((p)*PUBS+(n))
#define CELL(p,n) ((p)*D+(n)%D)
#define PAIR(p,s) ((p)*NS+(s))
#define ALIEN (NP*PUBS)          /* the stranger's chunk */

/* Records, by chunk. owner: 0 never used, 1 its publisher's, 2 left to who borrows it, 3 free again. ticket: 1 a token
   was made, 2 it was used. */
byte owner[NP*PUBS+1], ticket[NP*PUBS+1], borrowed[NP*PUBS+1];
/* Publishers: whose entry it is: p + 1, or 0; attention: it has changed since the publisher looked. */
byte serial[NP], count[NP]; bit attention[NP];
/* Cells: the message's number + 1, or 0: nothing was ever here; the token: chunk + 1. */
byte last[NP*D], token[NP*D];
/* Subscribers, and their cursors; made: the cursor is of this publisher. */
bit here[NS], made[NP*NS]; byte head[NP*NS], claim[NP*NS];
byte opening=0;                  /* who holds the lock of opening */
/* Slots: 0 in use, 1 whose it was has closed or died, 2 draining, 3 clean. */
byte pslot[NP], sslot[NS];
#if SWEEPERS > 1
bit plock[NP], slock[NS];
#endif
byte crashes=0, sweepers=SWEEPERS; bit alien_left=0, ended=0, told=0, finds_nothing=0;
/* Ghosts: how many messages were shown; the tokens of what is read in place, and of what is kept; a reliable subscriber
   may miss what is before `from`, no more. */
byte shown[NP], reading[NS], kept[NS], from[NP*NS];

#if NS == 1
#define SOME(f) (f(0))
#define ALL_HERE (here[0])
#elif NS == 2
#define SOME(f) (f(0) || f(1))
#define ALL_HERE (here[0]+2*here[1])
#else
#define SOME(f) (f(0) || f(1) || f(2))
#define ALL_HERE (here[0]+2*here[1]+4*here[2])
#endif
#if CRASHES == 0
#define S(x) atomic { x }
#else
#define S(x) atomic { if :: skip :: crashes<CRASHES -> crashes++; goto DEAD fi; x }
#endif

#define USES(s) (reading[s]==m+1 || kept[s]==m+1)
inline set_free() { assert(!SOME(USES)); owner[m]=3; ticket[m]=0 }
inline reap() { if :: owner[m]==2 && !borrowed[m] -> set_free() :: else fi }
/* The number of the message that s reads next of p: who has no cursor yet begins with the first. */
#define HEAD(p,s) (made[PAIR(p,s)] -> head[PAIR(p,s)] : 0)

/* ---- What a sweep asks: who has still to read cell w, does a cell show chunk m, is that claimed? ---- */
#ifndef NEEDY
#define needy 0
#endif
#ifdef M16
#define WANTS(s,p,w) (here[s] && (!needy || s<NREL) && made[PAIR(p,s)] && HEAD(p,s)<last[CELL(p,w)])
#else
#define WANTS(s,p,w) (here[s] && (!needy || s<NREL) && HEAD(p,s)<last[CELL(p,w)])
#endif
#if NS == 1
#define WANTED(p,w) WANTS(0,p,w)
#elif NS == 2
#define WANTED(p,w) (WANTS(0,p,w) || WANTS(1,p,w))
#else
#define WANTED(p,w) (WANTS(0,p,w) || WANTS(1,p,w) || WANTS(2,p,w))
#endif
#define SHOWN(p,w) SHOWS(last[CELL(p,w)])
#define HAS(w) (SHOWN(p,w) && token[CELL(p,w)]==m+1)
#define TO_GO(p,w) (SHOWN(p,w) && !WANTED(p,w))
#if D == 1
#define ANY_SHOWN(p) SHOWN(p,0)
#define ANY_TO_GO(p) TO_GO(p,0)
#define ANY_HAS HAS(0)
#define ANY_UNREAD (HAS(0) && WANTED(p,0))
#else
#define ANY_SHOWN(p) (SHOWN(p,0) || SHOWN(p,1))
#define ANY_TO_GO(p) (TO_GO(p,0) || TO_GO(p,1))
#define ANY_HAS (HAS(0) || HAS(1))
#define ANY_UNREAD ((HAS(0) && WANTED(p,0)) || (HAS(1) && WANTED(p,1)))
#endif
#ifdef M6
#define CLAIMS(s) (early[s]==m+1)
#else
#define CLAIMS(s) (claim[PAIR(p,s)]==m+1)
#endif
#if SWEEPERS > 1
#define P_LOCK(p) !plock[p] -> plock[p]=1; locked=1
#define S_LOCK(s) !slock[s] -> slock[s]=1; locked=2
#define UNLOCK if :: locked==1 -> plock[p]=0 :: locked==2 -> slock[s]=0 :: else fi; locked=0
#else
#define P_LOCK(p) skip
#define S_LOCK(s) skip
#define UNLOCK skip
#endif
#define P_DIRTY(p) ((pslot[p]==1 && round<2) || (pslot[p]==2 && round!=1 && DRAINABLE(p)))
#if NP == 1
#define ALL_P(what) (pslot[0] what)
#define NO_P_DIRTY (!P_DIRTY(0))
#else
#define ALL_P(what) (pslot[0] what && pslot[1] what)
#define NO_P_DIRTY (!P_DIRTY(0) && !P_DIRTY(1))
#endif
#if NS == 1
#define ALL_S(what) (sslot[0] what)
#elif NS == 2
#define ALL_S(what) (sslot[0] what && sslot[1] what)
#else
#define ALL_S(what) (sslot[0] what && sslot[1] what && sslot[2] what)
#endif
#define DRAINABLE(p) (ANY_TO_GO(p) || !ANY_SHOWN(p))

/* ---- A publisher. k: whom it knows; aside: what it has put aside; both bits ---- */
#ifdef M15
#define UNREAD(s) (((k>>s)&1) && made[PAIR(p,s)] && HEAD(p,s)<=n)
#define WAITED(s) (s<NREL && here[s] && made[PAIR(p,s)] && HEAD(p,s)<=r)
#else
#define UNREAD(s) (((k>>s)&1) && HEAD(p,s)<=n && (here[s] || HEAD(p,s)!=0))
#define WAITED(s) (s<NREL && here[s] && HEAD(p,s)<=r)
#endif
#define UNREAD_NOW(s) (here[s] && HEAD(p,s)<=r)
#define LOOK_AT(s,c) S(c=((k>>s)&1 -> claim[PAIR(p,s)] : 0))
#if NS == 1
#define LOOK_AT_CLAIMS LOOK_AT(0,c0)
#elif NS == 2
#define LOOK_AT_CLAIMS LOOK_AT(0,c0); LOOK_AT(1,c1)
#else
#define LOOK_AT_CLAIMS LOOK_AT(0,c0); LOOK_AT(1,c1); LOOK_AT(2,c2)
#endif
#define UNCLAIMED (c0!=m+1 && c1!=m+1 && c2!=m+1)
#ifdef M7
#undef UNCLAIMED
#define UNCLAIMED 1
#elif defined(M22)
#undef UNCLAIMED
#define UNCLAIMED (i<r-u || (c0!=m+1 && c1!=m+1 && c2!=m+1))
#endif
inline make_gone() {
  do
  :: i<r+u ->
#ifdef M20
     S(last[CELL(p,i)]=0); i++
#elif defined(M11)
     i++
#else
     S(last[CELL(p,i)]=i+1+GONE); i++
#endif
  :: else -> break
  od
}

proctype publisher(byte p) {
  byte t=0, r=0, k=0, aside=0;   /* the next message, and the oldest one in the ring */
  byte i=0, n=0, u=0, m=0, c0=0, c1=0, c2=0; bit closed=0;
  atomic { !opening -> serial[p]=p+1; attention[p]=1 }
  do
  /* ---- publish ---- */
  :: !closed && t<PUBS && t-r<D ->
     m=CHUNK(p,t);
     S(owner[m]=1; token[CELL(p,t)]=m+1);
     S(last[CELL(p,t)]=t+1; shown[p]=t+1; t++);
     S(count[p]=t; attention[p]=0; m=0)
  /* ---- the ring is full: frees what all have read; if that is nothing, the oldest one, unless it has to wait ---- */
  :: !closed && t<PUBS && t-r==D && !SOME(WAITED) -> goto FREE
#ifdef LIVES
  :: closed && ((r<t && !SOME(UNREAD_NOW)) || aside) ->
#else
  :: 0 ->
#endif
FREE:
     S(k=ALL_HERE; n=r; do :: n<t && !SOME(UNREAD) -> n++ :: else -> break od; u=n-r; i=r; n=0;
       if :: u==0 && !closed && !SOME(WAITED) -> u=1 :: else fi);
     if :: u==0 && !aside -> goto FREED :: else fi;
#ifdef M3
     LOOK_AT_CLAIMS;
#endif
#ifndef M2
     make_gone();
#endif
#ifndef M14
     S(if :: attention[p] -> k=ALL_HERE :: else fi);          /* after the fence */
#endif
#ifndef M3
     LOOK_AT_CLAIMS;
#endif
     atomic { do :: u>0 -> aside=aside|(1<<r); r++; u--; n++ :: else -> break od; i=0; u=n; n=0 }
     /* What is claimed stays aside, all else is released. */
     do
     :: i<t ->
        m=CHUNK(p,i);
        if
        :: ((aside>>i)&1) && UNCLAIMED ->
           aside=aside&~(1<<i);
           S(n=ticket[m]);
           if
           :: n==0 -> S(assert(owner[m]==1 && ticket[m]==0); set_free())   /* a store: nobody has come between */
           :: else ->
              S(assert(owner[m]==1); if :: borrowed[m] -> owner[m]=2 :: else -> set_free() fi);
              S(reap())
           fi
        :: else
        fi; i++
     :: else -> break
     od;
#ifdef M2
     i=r-u; r=r-u; make_gone(); r=r+u;
#endif
FREED:
     atomic { i=0; n=0; u=0; m=0; k=0; c0=0; c1=0; c2=0 }
#ifdef LIVES
  :: !closed -> S(closed=1)
#ifdef M23
  :: closed && r==t -> S(serial[p]=0); break
#else
  :: closed && r==t && !aside -> S(serial[p]=0); break
#endif
#endif
  :: skip -> break                                            /* it closes its manager: its slot is left */
  od;
DEAD:
  atomic { pslot[p]=1; t=0; r=0; k=0; aside=0; i=0; n=0; u=0; m=0; c0=0; c1=0; c2=0; closed=0 }
}

/* A publisher of another topic gets entry 0. Nobody subscribes to that, so it looks at no claims. */
proctype stranger() {
  byte i=0, m=ALIEN;
  if :: pslot[0]!=0 && serial[0]==0 && !opening -> serial[0]=NP+1 fi;
  do :: i<D -> last[i]=0; i++ :: else -> break od;
  atomic { token[0]=ALIEN+1; owner[ALIEN]=1 }
  last[0]=1;
  last[0]=1+GONE;
  atomic { set_free() }
  serial[0]=0;
  alien_left=1
}

/* ---- A subscriber. next: of each publisher; knows: whom it has met ---- */
#define MINE (serial[p]==p+1)
#define CURSOR PAIR(p,s)
#define MISSES(n) (SHOWS(last[CELL(p,n)]) && last[CELL(p,n)]>h+1)
inline make_cursor(n) { made[CURSOR]=1; head[CURSOR]=n; claim[CURSOR]=0; next[p]=n; knows[p]=1 }

proctype subscriber(byte s) {
  byte p=0, h=0, l=0, x=0, m=0, tries=0, next[NP]; bit ok=0, opens=0, knows[NP];
#ifdef M24
  S(attention[0]=1);
#endif
  S(opening++; opens=1; here[s]=1);
  do
  :: p<NP ->
     S(if :: MINE -> ok=1; l=count[p]; from[CURSOR]=shown[p] :: else fi);
     if :: ok ->
#ifdef HISTORY
           l=(l>D -> l-D : 0);
#endif
           S(make_cursor(l))
        :: else fi;
     p++; ok=0; l=0
  :: else -> break
  od; p=0;
#if !defined(M19) && !defined(M24)
  do :: p<NP -> S(attention[p]=1; p++) :: else -> break od; p=0;
#endif
  atomic { opening--; opens=0 }
  do
  :: tries<TAKES -> tries++;
#if NP > 1
     if :: p=0 :: p=1 fi;
#endif
     /* ---- who publishes? Before an entry is free, who is reliable has read all that was in it ---- */
     if
     :: knows[p] && !MINE -> S(assert(s>=NREL || MINE || next[p]==shown[p] || from[CURSOR]==shown[p]); knows[p]=MINE)
     :: !knows[p] && MINE -> S(if :: MINE -> make_cursor(0) :: else fi)
     :: else
     fi;
     if :: !knows[p] -> goto NEXT :: else fi;
     /* ---- receive. Nothing may be said only if nothing is there, unless who has freed it still is to write ---- */
     h=next[p];
     S(l=last[CELL(p,h)]; assert(NUMBER(l)>h || !pslot[p] || !MINE || !(MISSES(h+1) || MISSES(h+2))));
     if
     :: l==h+1
     :: l!=h+1 && NUMBER(l)>h ->                              /* overtaken: goes past what cannot be there */
        S(h=(NUMBER(l)==h+1 -> h+1 : NUMBER(l)-D); assert(s>=NREL || h<=from[CURSOR] || !MINE);
          head[CURSOR]=h; next[p]=h);
        goto NEXT
     :: else ->
#ifdef ALONE
        if
        :: last[CELL(p,h)]!=l -> tries--
        :: told && last[CELL(p,h)]==l -> if :: DRAINABLE(p) -> run sweeper() :: else fi; finds_nothing=1; goto STAYS
        fi;
#endif
        goto NEXT
     fi;
     S(x=token[CELL(p,h)]);
     S(claim[CURSOR]=x);                                      /* then the fence */
#ifdef M21
     S(ok=MINE);
#endif
#ifndef M1
     S(if :: last[CELL(p,h)]!=l -> x=0 :: else fi);
#endif
#if !defined(M1) && !defined(M13) && !defined(M21)
     S(if :: !MINE -> x=0 :: else fi; m=x-1; if :: x -> reading[s]=x; assert(owner[m]==1) :: else fi);
#elif defined(M21)
     S(if :: !ok -> x=0 :: else fi; m=x-1; if :: x -> reading[s]=x; assert(owner[m]==1) :: else fi);
#else
     S(m=x-1; if :: x -> reading[s]=x; assert(owner[m]==1) :: else fi);
#endif
     if :: x==0 -> S(claim[CURSOR]=0); goto NEXT :: else fi;
#ifdef KEEPS
     if
     :: skip
     :: skip ->                                               /* a hold of its own */
#ifdef M8
        S(reading[s]=0; claim[CURSOR]=0; head[CURSOR]=h+1);
#endif
        S(if :: ticket[m]==0 -> ticket[m]=1 :: else fi);
        S(borrowed[m]=borrowed[m]|(1<<s));
        S(assert(owner[m]==1); ticket[m]=2; kept[s]=x)
     fi;
#endif
     S(reading[s]=0; claim[CURSOR]=0);                        /* done */
     S(head[CURSOR]=h+1; next[p]=h+1);
#ifdef KEEPS
     if
     :: kept[s] -> S(kept[s]=0; borrowed[m]=borrowed[m]&~(1<<s)); S(reap())
     :: else
     fi;
#endif
NEXT:
     atomic { p=0; h=0; l=0; x=0; m=0; ok=0 }
#ifndef ALONE
  :: skip -> break                                            /* it closes: what it leaves is swept */
#else
  :: tries>=TAKES -> break
#endif
  od;
DEAD:
  atomic { sslot[s]=1; opening=opening-opens; opens=0; reading[s]=0; kept[s]=0; tries=0; h=0; l=0; x=0; m=0; ok=0;
    p=0; do :: p<NP -> next[p]=0; knows[p]=0; p++ :: else -> break od; p=0 }
#ifdef ALONE
STAYS: skip
#endif
}

/* ---- Who sweeps, under the slot's lock. In round 0 others live: whoever has left may be swept, in any order. Round 1
   recovers all who have left, round 2 those who drain; then nothing is left of anybody ---- */
proctype sweeper() {
  byte p=0, s=0, m=0, i=0, round=0; bit ok=0, keeps=0;
#ifdef NEEDY
  bit needy=0;
#endif
#if SWEEPERS > 1
  byte locked=0;
#endif
#ifdef M6
  byte early[NS];
#endif
AGAIN:
#ifdef ALONE
  atomic { pslot[0] -> if :: plock[0] || pslot[0]==3 -> goto LEFT :: else -> P_LOCK(0) fi }; goto PUBLISHER;
#endif
  if
  :: atomic { P_DIRTY(0) -> p=0; P_LOCK(0) } goto PUBLISHER
#if NP > 1
  :: atomic { P_DIRTY(1) -> p=1; P_LOCK(1) } goto PUBLISHER
#endif
  :: atomic { sslot[0]==1 -> s=0; S_LOCK(0) } goto SUBSCRIBER
#if NS > 1
  :: atomic { sslot[1]==1 -> s=1; S_LOCK(1) } goto SUBSCRIBER
#endif
#if NS > 2
  :: atomic { sslot[2]==1 -> s=2; S_LOCK(2) } goto SUBSCRIBER
#endif
  :: atomic { round==0 && ALL_P(>0) && ALL_S(>0) ->
              if :: sweepers>1 -> sweepers--; goto LEFT :: else -> crashes=CRASHES; round=1 fi
     }; goto AGAIN
  :: atomic { round==1 && ALL_P(>1) && ALL_S(>1) ->
#ifdef M17
              round=3
#else
              round=2
#endif
     }; goto AGAIN
  :: atomic { round==2 && NO_P_DIRTY -> round=3 }
  :: round==3 -> skip
  fi;
#ifdef STRANGER
  if :: alien_left -> skip fi;
#endif
  atomic {
    assert(ALL_P(==3) && ALL_S(==3) && !opening);
    for (p : 0 .. NP-1) { assert(!serial[p]) } p=0;
    for (i : 0 .. NP*NS-1) { assert(!made[i] && !claim[i]) }
    for (m : 0 .. NP*PUBS) { assert(owner[m]%3==0 && !borrowed[m]) }
  }
  goto LEFT;

PUBLISHER:
#ifdef NEEDY
  if :: needy=0 :: needy=1 fi;
#endif
#ifdef ALONE
  S(ok=!ended; ended=1);
#ifdef M25
  S(if :: ok -> told=1 :: else fi);
#else
  S(if :: ok || pslot[p]!=2 -> told=1 :: else fi);            /* who swept before may have been killed just here */
#endif
  ok=0;
#endif
#ifdef M6
  i=0; do :: i<NS -> S(early[i]=claim[PAIR(p,i)]; i++) :: else -> break od; i=0;
#endif
#ifndef M12
  do
  :: i<D ->
#ifdef M4
     S(if :: MINE && SHOWN(p,i) -> last[CELL(p,i)]=last[CELL(p,i)]+GONE :: else fi; i++)
#else
     S(if :: MINE && TO_GO(p,i) -> last[CELL(p,i)]=last[CELL(p,i)]+GONE :: else fi; i++)
#endif
  :: else -> break
  od; i=0;                                                    /* then the fence */
#endif
  do
  :: i<PUBS ->
     m=CHUNK(p,i);
     if
     :: owner[m]==1 ->
#ifdef M5
        S(ok=(MINE && ANY_HAS));
#elif defined(M12)
        S(ok=(MINE && (ANY_UNREAD || SOME(CLAIMS))));
#else
        S(ok=(MINE && (ANY_HAS || SOME(CLAIMS))));
#endif
        if
        :: ok -> keeps=1
        :: else -> S(if :: ticket[m]<2 -> set_free() :: else -> owner[m]=2 fi); S(reap())
        fi
     :: owner[m]==2 -> S(reap())
     :: else
     fi; i++
  :: else -> break
  od; i=0; m=0;
#ifdef M10
  keeps=0;
#endif
#ifdef M12
  if :: keeps -> S(pslot[p]=2)
#else
  if :: keeps || (MINE && ANY_SHOWN(p)) -> S(pslot[p]=2)
#endif
     :: else -> S(if :: MINE -> serial[p]=0 :: else fi); S(pslot[p]=3) fi;
  goto SWEPT;

SUBSCRIBER:
  do
  :: p<NP ->
#ifndef M9
     S(made[CURSOR]=0);
     S(claim[CURSOR]=0);
#endif
     p++
  :: else -> break
  od; p=0;
  S(here[s]=0);
  do :: p<NP -> S(attention[p]=1); p++ :: else -> break od; p=0;
#ifdef KEEPS
  do :: m<NP*PUBS -> S(borrowed[m]=borrowed[m]&~(1<<s)); S(reap()); m++ :: else -> break od; m=0;
#endif
  S(sslot[s]=3);
  goto SWEPT;

DEAD:
  atomic { UNLOCK; p=0; s=0; m=0; i=0; ok=0; keeps=0 }
#ifdef NEEDY
  needy=0;
#endif
  goto AGAIN;
SWEPT:
  atomic { UNLOCK; p=0; s=0; m=0; i=0; ok=0; keeps=0 }
#ifdef NEEDY
  needy=0;
#endif
#if defined(ALONE) && !defined(M18)
  if :: pslot[0]==2 && DRAINABLE(0) -> goto AGAIN :: else fi;
#endif
#ifndef ALONE
  goto AGAIN;
#endif
LEFT:
  skip
}

init { byte i;
  atomic {
    for (i : 0 .. NP-1) { run publisher(i) }
    for (i : 0 .. NS-1) { run subscriber(i) }
#ifdef STRANGER
    run stranger();
#endif
    #ifdef ALONE
    run sweeper();
#else
    for (i : 1 .. SWEEPERS) { run sweeper() }
#endif
    i=0
  }
#ifdef ALONE
  (_nr_pr==1);
  assert(!finds_nothing || pslot[0]==3)
#endif
}
