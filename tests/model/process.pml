/* One chunk, two processes: 0 has two threads, 1 has one: the loans, the caches and the private counts of zerocp.h, sections >>hints, >>hints and
   >>hold, on top of the record, step by step. A process may be killed at any step; the other may sweep it at any time; tokens may be stale.
   After each step the chunk's hint, if it is free, is in the list, on loan, in somebody's hand, or lost by one who was killed. Run by ./spin; by hand:
   spin -a -DMAXCRASH=1 -DOPS=1 process.pml && gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -DVECTORSZ=2048 -o pan pan.c && ./pan -m2000000 -n
   -DNO_CACHE, -DNO_LOANS leave one of them out, -DCLONE lets thread 0 clone its handle for thread 1, -DLEASES=2 is a pool with two leases,
   -DSIBLINGS puts all three threads into process 0.
   Who waits, what retires and who takes from others' caches is left to protocol.c: that is about barriers, and each would multiply the states here.
   Mutants, each must fail: -DM1 a borrow of what has no token, M2 the ticket after the token, M3 owned after the state, M4 cached without a new generation, M5 owned
   by a store, M6 no look at the borrow bits, M7 the sweep leaves what is cached, M8 a claim by a store, M9 the direct free by a store, M10 the generation
   compared before the count, M11 the loan written after the lease was given up, M12 the bits taken before the loan is shown, M13 the loan cleared before
   its bits are back, M14 the sweep leaves the loans, M15 the sweep frees what the dead one owned, whatever the
   ticket. */
#ifndef MAXCRASH
#define MAXCRASH 1
#endif
#ifndef OPS
#define OPS 1
#endif
#ifndef OPS1
#define OPS1 OPS
#endif
#ifndef OPS2
#define OPS2 OPS
#endif
#ifndef LEASES
#define LEASES 1
#endif
#define CHANGING 255
#define CACHED 15                /* the ticket of a cached chunk */
#define NEXT(t) ((t)+1<CACHED -> (t)+1 : 2)
#define FREE(o,t) ((o)==0 && (t)==0)
byte gen=1, owner=0, ticket=0;   /* the state word */
bit H[2];                        /* borrow bits */
bit listed=1;                    /* the hint in the list */
byte holder[LEASES]; bit loan[LEASES];    /* the leases: process + 1, or 0; the hint on loan */
byte O[2], OG[2], B[2];          /* private: owner handles and their generation, borrower handles */
bit killed[2], dead[2], lost[2]; byte crashes=0; byte alive[2];       /* lost: killed, and not yet swept to the end */
bit holds[3];                    /* ghost: live handles */
bit hand[3];                     /* ghost: the thread has taken the hint, or freed the chunk, and goes on at once */
bit mbox; byte mgen;             /* a cloned handle on its way from thread 0 to thread 1 */
byte tok=0; bit tokset=0; bit gone;

#if LEASES == 1
#define LENT loan[0]
#else
#define LENT (loan[0] || loan[1])
#endif
inline none_hold() { assert(!holds[0] && !holds[1] && !holds[2] && !(mbox && !killed[0])) }
/* killed before this step, by a sibling's step or by itself */
#if MAXCRASH == 0
#define P skip
#else
#define P if :: killed[c] -> goto DEAD :: else -> if :: skip :: crashes<MAXCRASH -> crashes++; killed[c]=1; lost[c]=1; goto DEAD fi fi
#endif
#define FOUND assert(!FREE(owner,ticket) || listed || LENT || hand[0] || hand[1] || hand[2] || lost[0] || lost[1])
#define S(x) atomic { P; x; FOUND }
#ifdef M15
#define NEVER_BORROWED(t) 1
#else
#define NEVER_BORROWED(t) ((t)<=1 || (t)==CACHED)
#endif
#define CASOK (gen==sg && owner==so && ticket==st)
#define LOOK sg=gen; so=owner; st=ticket
/* free, or on the stack */
inline let_go() {
#ifdef M4
  if :: keep -> owner=c+1; ticket=CACHED; kg=gen :: else -> gen=gen+1; owner=0; ticket=0; hand[t]=1 fi
#else
  gen=gen+1; if :: keep -> owner=c+1; ticket=CACHED; kg=gen :: else -> owner=0; ticket=0; hand[t]=1 fi
#endif
}

inline reap() {
  do
  :: skip -> S(LOOK);
     if :: FREE(so,st) || so!=0 -> break :: else fi;
     S(ok=H[0]); if :: ok -> break :: else fi;
     S(ok=H[1]); if :: ok -> break :: else fi;
     S(if :: CASOK -> none_hold(); gen=gen+1; owner=0; ticket=0; hand[t]=1; ok=1 :: else -> ok=0 fi);
     if :: ok -> S(listed=1; hand[t]=0); break :: else fi
  od; ok=0
}

#define MYOPS (t==0->OPS:(t==1->OPS1:OPS2))
proctype thread(byte t) {
  byte hg, kg;                   /* generation of the handle that it holds, of the chunk on its stack; or 0 */
  byte l; bit w, my;             /* its lease + 1, or 0; its loan is of the chunk's leaf; its loan */
  byte sg,so,st,g,n,ops=0,c,d,keep; bit ok,mk,made;
#ifndef SIBLINGS
  c=t/2;
#endif
  do
  /* ---- allocate by a hint: of the list, through my lease, of my loan or of anybody's; or by the record, after a look ---- */
  :: ops<MYOPS && !hg && !kg -> ops++; ok=0;
     if
     :: !l -> S(if :: listed -> listed=0; hand[t]=1; ok=1 :: else fi)
#ifndef NO_LOANS
     :: !my ->
        if :: !l ->
              if :: d=0 :: LEASES>1 -> d=1 fi;
              S(if :: holder[d]==0 -> holder[d]=c+1; l=d+1 :: else fi)
           :: else fi;
        if :: l ->
              S(ok=listed);
              if :: ok ->
                    w=1;
#ifndef M12
                    S(loan[l-1]=1);
                    S(if :: listed -> listed=0; my=1 :: else fi);
                    if :: !my -> S(loan[l-1]=0) :: else fi;
#else
                    S(if :: listed -> listed=0; my=1 :: else fi);
                    if :: my -> S(loan[l-1]=1) :: else fi;
#endif
                    ok=0
                 :: else fi;
              if :: my -> S(loan[l-1]=0; my=0; hand[t]=1; ok=1) :: else fi
           :: else fi; d=0
     :: my -> S(loan[l-1]=0; my=0; hand[t]=1; ok=1)
     :: skip -> S(ok=LENT)
#endif
     :: skip -> reap(); S(if :: FREE(owner,ticket) -> listed=1 :: else fi); ok=1
     fi;
     if :: ok ->
        S(LOOK; if :: !FREE(so,st) -> hand[t]=0 :: else fi);
        if :: FREE(so,st) ->
#ifdef M8
              S(owner=c+1; hand[t]=0; none_hold(); ok=1)
#else
              S(if :: CASOK -> none_hold(); owner=c+1; ok=1 :: else -> ok=0 fi; hand[t]=0)
#endif
           :: else -> ok=0 fi;
        if :: ok -> S(assert(O[c]==0); O[c]=1; OG[c]=sg; holds[t]=1; hg=sg) :: else fi
        :: else fi; ok=0; sg=0; so=0; st=0
  /* ---- allocate from my stack ---- */
  :: ops<MYOPS && kg && !hg -> ops++;
     S(assert(gen==kg && owner==c+1 && ticket==CACHED && O[c]==0); none_hold(); ticket=0);
     S(O[c]=1; OG[c]=kg; holds[t]=1; hg=kg; kg=0)
  /* ---- make a token of what I hold (as owner or borrower) ---- */
  :: ops<=MYOPS && hg && !mk -> mk=1;
#ifdef M2
     S(tok=hg; tokset=1);
#endif
     S(n=(OG[c]==hg -> O[c] : 0));
     S(LOOK);
     if :: sg==hg && so==c+1 && st==0 ->
           if :: n==1 -> S(assert(CASOK); ticket=1)
              :: else -> S(if :: CASOK -> ticket=1 :: else fi) fi
        :: else fi;
#ifndef M2
     S(tok=hg; tokset=1);
#endif
     goto NEXT_OP
#ifdef CLONE
  :: ops<MYOPS && t==0 && hg && !mbox -> ops++;             /* clone and give it to the sibling */
     S(if :: O[0]>0 && OG[0]==hg -> O[0]=O[0]+1; mbox=1; mgen=hg :: else fi)
  :: t==1 && mbox && !hg && !kg -> S(mbox=0; holds[1]=1; hg=mgen; mgen=0)
#endif
  /* ---- acquire a token, stale or not, or a guess: the borrower path for every process, the owner's too ---- */
  :: ops<MYOPS && !hg -> ops++;
     S(if :: tokset -> g=tok; made=1 :: g=gen fi); ok=0;
     do
     :: skip -> S(n=B[c]);
        if :: n==CHANGING -> (B[c]!=CHANGING || killed[c])
           :: n==0 -> S(if :: B[c]==0 -> B[c]=CHANGING; ok=1 :: else fi); if :: ok -> break :: else fi
           :: else ->
#ifdef M10
              S(ok=(gen==g)); if :: !ok -> break :: else -> ok=0 fi;
#endif
              S(if :: B[c]==n -> B[c]=n+1; ok=1 :: else fi);
              if :: ok -> ok=0;
#ifdef M10
                    S(holds[t]=1; hg=g); break
#else
                    S(if :: gen==g -> holds[t]=1; hg=g; ok=1 :: else fi);
                    if :: ok -> ok=0; break :: else -> goto DROP fi
#endif
                 :: else fi
        fi
     od;
     if :: ok ->
        S(H[c]=1);
        do
        :: skip -> S(LOOK);
           assert(!made || sg!=g || st!=0);                   /* whoever has a token that was made is not refused */
#ifdef M1
           if :: sg!=g || FREE(so,st) || st==CACHED -> S(H[c]=0); reap(); break :: else fi;
#else
           if :: sg!=g || st==0 || st==CACHED -> S(H[c]=0); reap(); break :: else fi;
#endif
           S(if :: CASOK -> ticket=NEXT(ticket); holds[t]=1; hg=sg; ok=1 :: else -> ok=0 fi);
           if :: ok -> break :: else fi
        od;
        S(B[c]=(hg->1:0))
     :: else fi; ok=0; made=0; g=0; n=0; sg=0; so=0; st=0
  /* ---- release ---- */
  :: hg ->
     g=hg; hg=0; mk=0; ok=0;
#ifndef NO_CACHE
     if :: !kg -> keep=1 :: keep=0 fi;
#endif
     S(LOOK; assert(sg==g && !FREE(so,st) && st!=CACHED));
     S(n=(OG[c]==g -> O[c] : 0));
     if
     :: n==1 ->                                               /* owner, last handle: */
        S(LOOK);
        if :: so==c+1 && st==0 ->                             /* no token of this generation: nobody else */
#ifndef M3
              S(O[c]=0; OG[c]=0; holds[t]=0);
#endif
              S(assert(CASOK); assert((t==0||!holds[0]) && (t==1||!holds[1]) && (t==2||!holds[2]) && !(mbox && !killed[0])); let_go());
#ifdef M3
              S(O[c]=0; OG[c]=0; holds[t]=0);
#endif
              goto HINT
           :: else fi
     :: else fi;
     S(holds[t]=0);                                           /* ghost: the handle is gone, the count is not yet */
#ifdef M5
     if :: n==1 -> S(O[c]=0); goto LASTO :: else -> skip fi;
#endif
     do
     :: skip -> S(n=(OG[c]==g -> O[c] : 0));
        if :: n>0 -> S(if :: O[c]==n && OG[c]==g -> O[c]=n-1; ok=1 :: else -> ok=0 fi);
              if :: ok && n==1 -> goto LASTO :: ok && n>1 -> goto NEXT_OP :: else fi
           :: else -> break fi
     od;
     S(assert(gen==g));
DROP:
     do
     :: skip -> S(n=B[c]); assert(n!=0 && n!=CHANGING);
        S(if :: B[c]==n -> B[c]=(n==1->CHANGING:n-1); ok=1 :: else -> ok=0 fi);
        if :: ok -> break :: else fi
     od;
     ok=0;
     if :: n==1 -> S(H[c]=0); reap(); S(B[c]=0) :: else fi;
     goto NEXT_OP;
LASTO:  /* last owner handle; a token may exist */
     do
     :: S(LOOK); assert(sg==g && so==c+1); n=0;
        if :: st>1 ->
#ifndef M6
              S(n=H[0]); if :: n==0 -> S(n=H[1]) :: else fi
#endif
           :: else fi;
        if :: n==0 ->                                         /* never borrowed, or all have returned */
#ifdef M9
              S(none_hold(); let_go(); ok=1);
#else
              S(if :: CASOK -> none_hold(); let_go(); ok=1 :: else -> ok=0 fi);
#endif
              if :: ok -> goto HINT :: else fi
           :: else ->
              S(if :: CASOK -> owner=0; ticket=NEXT(ticket); ok=1 :: else -> ok=0 fi);
              if :: ok -> reap(); goto NEXT_OP :: else fi
        fi
     od;
HINT:
     if :: !keep && w -> S(loan[l-1]=1; my=1; hand[t]=0)
        :: !keep && !w -> S(listed=1; hand[t]=0)
        :: keep -> skip fi;
     goto NEXT_OP
  /* ---- flush of the stack (full, somebody is in need, or at thread exit) ---- */
  :: kg && !hg -> S(assert(gen==kg && owner==c+1 && ticket==CACHED); kg=0; none_hold(); owner=0; ticket=0; hand[t]=1); keep=0; goto HINT
#ifndef NO_LOANS
  /* ---- give the lease up ---- */
  :: l && !kg && !hg -> d=l-1;
#ifndef M13
     if :: my -> S(listed=1) :: else fi;
#ifndef M11
     S(loan[d]=0);
#endif
#else
     S(loan[d]=0);
     if :: my -> S(listed=1) :: else fi;
#endif
     S(holder[d]=0);
#ifdef M11
     S(loan[d]=0);
#endif
     l=0; w=0; my=0;
     goto NEXT_OP
#endif
  /* ---- sweep the dead process ---- */
  :: ops<MYOPS && dead[1-c] -> ops++; d=1-c;
     S(if :: dead[d] -> dead[d]=0; ok=1 :: else -> ok=0 fi);
     if :: ok ->
        do
        :: skip -> S(LOOK);
           if :: so!=d+1 -> break :: else fi;
#ifdef M7
           if :: st==CACHED -> break :: else fi;
#endif
           S(if :: CASOK && NEVER_BORROWED(st) -> none_hold(); gen=gen+1; owner=0; ticket=0; ok=1
                :: CASOK && !NEVER_BORROWED(st) -> owner=0; ticket=NEXT(ticket); ok=1 :: else -> ok=0 fi); if :: ok -> break :: else fi
        od;
        S(H[d]=0);
        reap(); S(if :: FREE(owner,ticket) -> listed=1 :: else fi);
#ifndef M14
        S(if :: holder[0]==d+1 -> loan[0]=0 :: else fi); S(if :: holder[0]==d+1 -> holder[0]=0 :: else fi);
#if LEASES > 1
        S(if :: holder[1]==d+1 -> loan[1]=0 :: else fi); S(if :: holder[1]==d+1 -> holder[1]=0 :: else fi);
#endif
#endif
        S(lost[d]=0)
     :: else fi; goto NEXT_OP
  :: ops>=MYOPS && !hg && !kg && !l && !(t==1 && (mbox || !gone)) -> break
NEXT_OP: ok=0; made=0; n=0; sg=0; so=0; st=0; keep=0; g=0; d=0
  od;
DEAD:
  atomic{ holds[t]=0; hand[t]=0; hg=0; kg=0; l=0; w=0; my=0; mk=0; sg=0; so=0; st=0; g=0; n=0; d=0; keep=0; ok=0; made=0; ops=0; alive[c]--; if :: t==0 -> gone=1 :: else fi;
          if :: alive[c]==0 && killed[c] -> dead[c]=1 :: else fi }
}
init {
  byte k;
  atomic{
#ifdef SIBLINGS
    alive[0]=3;
#else
    alive[0]=2; alive[1]=1;
#endif
    run thread(0); run thread(1); run thread(2) }
  (_nr_pr==1);
  atomic{                                                     /* the next sweeps */
    if :: lost[0] -> H[0]=0; if :: owner==1 -> owner=0; ticket=NEXT(ticket) :: else fi :: else fi;
    if :: lost[1] -> H[1]=0; if :: owner==2 -> owner=0; ticket=NEXT(ticket) :: else fi :: else fi;
    if :: (lost[0] || lost[1]) && !FREE(owner,ticket) && owner==0 && !H[0] && !H[1] -> gen=gen+1; ticket=0 :: else fi;
    if :: (lost[0] || lost[1]) && FREE(owner,ticket) -> listed=1 :: else fi;
    for (k : 0 .. LEASES-1) { if :: holder[k]!=0 && lost[holder[k]-1] -> loan[k]=0; holder[k]=0 :: else fi; assert(holder[k]==0 && !loan[k]) }
    assert(FREE(owner,ticket) && listed && !H[0] && !H[1]);
    assert(killed[0] || (O[0]==0 && B[0]==0)); assert(killed[1] || (O[1]==0 && B[1]==0))
  }
}
