/* One chunk, N clients (2 or 3), each killed at any step, concurrent idempotent sweeps, stale tokens: the record protocol of zerocp.h, section >>record,
   step by step, with every interleaving but no weak memory (that is protocol.c's). Run by ./spin; by hand:
     spin -a -DN=2 -DMAXCRASH=1 -DOPS=2 chunk.pml && gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -DVECTORSZ=2048 -o pan pan.c && ./pan -m2000000 -n
   Mutants, each must fail: -DNO_TICKET, -DBIT_LAST, -DNO_REAP (after a retract), -DNO_PUSH (by the sweep), -DSWEEP_FREES (whatever the
   ticket).
   State word = (gen, owner, ticket), free <=> owner==0 && ticket==0; ticket 1: a token was made, and nobody has borrowed. H[i] = borrow bit of client i. listed = the bit in the list. */
#ifndef N
#define N 2
#endif
#ifndef MAXCRASH
#define MAXCRASH 2
#endif
#ifndef OPS
#define OPS 3
#endif
byte gen=0, owner=0, ticket=0;
bit H[N]; bit listed=1;
bit dead[N];            /* crashed, not yet swept: lock free, slot dirty */
bit swept_lock[N];      /* slot lock held (by live client or by the sweeper) */
byte crashes=0;
bit holds[N]; byte hgen[N];   /* ghost */
byte tok=0; bit tokset=0;     /* a token anyone may try, however stale */

#define FREE(o,t) ((o)==0 && (t)==0)
#define CRASHPT if :: skip :: atomic{ (crashes<MAXCRASH) -> crashes++; goto CRASHED } fi

#if N == 3
#define NONE(x) (!x[0] && !x[1] && !x[2])
#else
#define NONE(x) (!x[0] && !x[1])
#endif
#ifdef NO_TICKET
#define RAISED ticket
#else
#define RAISED ticket+1
#endif

#ifdef SWEEP_FREES
#define NEVER_BORROWED(t) 1
#else
#define NEVER_BORROWED(t) ((t)<=1)
#endif

inline assert_none_hold() { assert(NONE(holds)) }

/* reap: locals sg,so,st,w,bad */
inline reap() {
  do
  :: CRASHPT; atomic{ sg=gen; so=owner; st=ticket };
     if :: FREE(so,st) || so!=0 -> break :: else fi;
     w=0; bad=0;
     do :: w<N -> CRASHPT; if :: H[w] -> bad=1; break :: else fi; w++ :: w>=N -> break od;
     if :: bad -> break :: else fi;
     CRASHPT;
     if
     :: atomic{ (gen==sg && owner==so && ticket==st) -> assert_none_hold(); gen=gen+1; owner=0; ticket=0; ok=1 }
     :: atomic{ !(gen==sg && owner==so && ticket==st) -> ok=0 }
     fi;
     if :: ok -> CRASHPT; listed=1; break :: else fi
  od
}

inline sweep(j) {
  /* clear owner */
  do
  :: CRASHPT; atomic{ sg=gen; so=owner; st=ticket };
     if :: so!=j+1 -> break :: else fi;
     CRASHPT;
     if :: atomic{ (gen==sg && owner==so && ticket==st && NEVER_BORROWED(st)) -> assert_none_hold(); gen=gen+1; owner=0; ticket=0; break }
        :: atomic{ (gen==sg && owner==so && ticket==st && !NEVER_BORROWED(st)) -> owner=0; ticket=ticket+1; break }
        :: atomic{ !(gen==sg && owner==so && ticket==st) -> skip } fi
  od;
  CRASHPT; H[j]=0;
  reap();
#ifndef NO_PUSH
  CRASHPT; atomic{ so=owner; st=ticket };
  if :: FREE(so,st) -> CRASHPT; listed=1 :: else fi
#endif
}

proctype client(byte id) {
  byte sg,so,st,w,g,ops=0,j,sweeping=0; bit bad,ok;
START:
  do
  :: ops<OPS && !holds[id] -> ops++;      /* allocate */
     if
     :: atomic{ listed -> listed=0 };
        CRASHPT; atomic{ sg=gen; so=owner; st=ticket };
        if :: FREE(so,st) ->
              CRASHPT;
              if :: atomic{ (gen==sg && owner==so && ticket==st) -> assert_none_hold(); owner=id+1; holds[id]=1; hgen[id]=sg }
                 :: atomic{ !(gen==sg && owner==so && ticket==st) -> skip } fi
           :: else fi
     :: !listed -> skip
     fi;
     if :: holds[id] -> CRASHPT; ticket=1; CRASHPT; atomic{ tok=hgen[id]; tokset=1 } :: else fi
  :: ops<OPS && !holds[id] && tokset -> ops++;   /* acquire a possibly stale token */
     g=tok;
#ifndef BIT_LAST
     CRASHPT; H[id]=1;
#endif
     do
     :: CRASHPT; atomic{ sg=gen; so=owner; st=ticket };
        if :: sg!=g || st==0 -> CRASHPT; H[id]=0;
#ifndef NO_REAP
           reap();
#endif
           break :: else fi;
        CRASHPT;
        if :: atomic{ (gen==sg && owner==so && ticket==st) -> ticket=RAISED; holds[id]=1; hgen[id]=sg }
#ifdef BIT_LAST
           CRASHPT; H[id]=1;
#endif
           break
           :: atomic{ !(gen==sg && owner==so && ticket==st) -> skip } fi
     od
  :: holds[id] ->                             /* release */
     assert(gen==hgen[id] && !FREE(owner,ticket));
     holds[id]=0;
     CRASHPT;
     if
     :: owner==id+1 ->
        do
        :: atomic{ sg=gen; so=owner; st=ticket };
           bad=0;
           if :: st>1 ->     /* a token was used: a look at all borrow bits */
                 w=0;
                 do :: w<N -> CRASHPT; if :: H[w] -> bad=1; break :: else fi; w++ :: w>=N -> break od
              :: else fi;
           CRASHPT;
           if :: !bad ->     /* nobody else: straight to free */
                 if :: atomic{ (gen==sg && owner==so && ticket==st) -> assert_none_hold(); gen=gen+1; owner=0; ticket=0; ok=1 }
                    :: atomic{ !(gen==sg && owner==so && ticket==st) -> ok=0 } fi;
                 if :: ok -> CRASHPT; listed=1; break :: else fi
              :: else ->
                 if :: atomic{ (gen==sg && owner==so && ticket==st) -> owner=0; ticket=ticket+1; ok=1 }
                    :: atomic{ !(gen==sg && owner==so && ticket==st) -> ok=0 } fi;
                 if :: ok -> reap(); break :: else fi
           fi
        od
     :: else -> H[id]=0; reap()
     fi
  :: ops<OPS ->                                /* recover somebody dead */
     ops++;
     if :: (id!=0 && dead[0] && !swept_lock[0]) -> j=0
        :: (id!=1 && dead[1] && !swept_lock[1]) -> j=1
#if N == 3
        :: (id!=2 && dead[2] && !swept_lock[2]) -> j=2
#endif
        :: else -> goto START fi;
     if :: atomic{ (dead[j] && !swept_lock[j]) -> swept_lock[j]=1; sweeping=1+j } :: else -> goto START fi;
     sweep(j);
     atomic{ dead[j]=0; swept_lock[j]=0; sweeping=0; run client(j) }   /* slot clean: a new incarnation joins */
  :: ops>=OPS && !holds[id] -> break
  od;
  goto END;
CRASHED:
  atomic{ holds[id]=0; dead[id]=1; if :: sweeping!=0 -> swept_lock[sweeping-1]=0; sweeping=0 :: else fi }
END: skip
}

init { byte j; bit reaps;
  atomic{
    run client(0); run client(1);
#if N == 3
    run client(2)
#endif
  }
  /* when only init is left: final recovery, then nothing may be lost */
  (_nr_pr==1);
  j=0;
  do :: j<N ->
        if :: dead[j] -> 
           atomic{ if :: owner==j+1 -> owner=0; ticket=ticket+1 :: else fi; H[j]=0;
#ifndef NO_PUSH
                   if :: FREE(owner,ticket) -> listed=1 :: else fi;
#endif
                   reaps=1 } :: else fi; j++
     :: j>=N -> break od;
  atomic{
    if :: reaps && !FREE(owner,ticket) && owner==0 && NONE(H) -> gen=gen+1; owner=0; ticket=0; listed=1 :: else fi;
    assert(FREE(owner,ticket) && listed);
    assert(NONE(H))
  }
}
