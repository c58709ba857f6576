/* One chunk, two processes: 0 has two threads, 1 has one: the private counts of zerocp.h, section >>handles, on top of the record, step by step.
   A process may be killed at any step; the other may sweep it at any time; tokens may be stale. Run by ./spin; by hand:
   spin -a -DMAXCRASH=1 -DOPS=2 process.pml && gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -o pan pan.c && ./pan -m200000 -n
   Mutants, each must fail: -DM1 no look at the mark, M2 the mark after the token, M3 owned after the state, M5 owned by a store, M6 no look at the
   borrow bits, M9 the direct free by a store, M10 the generation compared before the count.
   -DLATER adds the leased hints and the owned cache, which zerocp.h does not have yet (with them: mutants M4, M8). */
#ifndef MAXCRASH
#define MAXCRASH 1
#endif
#ifndef OPS
#define OPS 2
#endif
#define CHANGING 255
#define FREE(o,t) ((o)==0 && (t)==0)
#define SIB(t) (1-t)
byte gen=1, owner=0, ticket=0;   /* the state word */
bit H[2];                        /* borrow bits */
bit listed=1;                    /* public hint */
bit loan[3];                     /* hint in the leaf that thread t has leased: written by t alone, read by all as a hint */
bit K[3];                        /* in thread t's owned cache (private) */
byte O[2], T[2], B[2];           /* private: owner handles, generation a token was made of, borrower handles */
bit killed[2], dead[2]; byte crashes=0; byte alive[2];
bit holds[3]; byte hgen[3];      /* ghost: live handles */
bit mbox; byte mgen;             /* a cloned handle on its way from thread 0 to thread 1 */
byte tok=0; bit tokset=0;

inline none_hold() { assert(!holds[0] && !holds[1] && !holds[2] && !(mbox && !killed[0])) }
/* killed before this step, by a sibling's step or by itself */
#define P if :: killed[c] -> goto DEAD :: else -> if :: skip :: crashes<MAXCRASH -> crashes++; killed[c]=1; goto DEAD fi fi
#define S(x) atomic { P; x }
#define CASOK (gen==sg && owner==so && ticket==st)

inline reap() {
  do
  :: skip -> S(sg=gen; so=owner; st=ticket);
     if :: FREE(so,st) || so!=0 -> break :: else fi;
     S(ok=H[0]); if :: ok -> break :: else fi;
     S(ok=H[1]); if :: ok -> break :: else fi;
     S(if :: CASOK -> none_hold(); assert(!K[0]&&!K[1]&&!K[2]); gen=gen+1; owner=0; ticket=0; ok=1 :: else -> ok=0 fi);
     if :: ok -> S(listed=1); break :: else fi
  od; ok=0
}

#ifndef OPS1
#define OPS1 OPS
#endif
#ifndef OPS2
#define OPS2 OPS
#endif
#define MYOPS (t==0->OPS:(t==1->OPS1:OPS2))
proctype thread(byte t) {
  byte sg,so,st,g,n,ops=0,c,d,keep; bit ok,mk;
  c=t/2;
  do
  /* ---- allocate from a hint: public, my lease, or (when exhausted) somebody else's lease ---- */
  :: ops<MYOPS && !holds[t] && !K[t] -> ops++; ok=0;
     if
     :: skip -> S(if :: listed -> listed=0; ok=1 :: else fi)                                   /* pop */
#ifdef LATER
     :: skip -> S(if :: listed -> listed=0; ok=1 :: else fi); if :: ok -> S(loan[t]=1); S(loan[t]=0) :: else fi   /* lease: exchange, publish, take */
     :: skip -> S(if :: loan[t] -> loan[t]=0; ok=1 :: else fi)                                 /* from my lease */
     :: skip -> S(if :: loan[0] || loan[1] || loan[2] -> ok=1 :: else fi)                      /* steal: a look only */
#endif
     fi;
     if :: ok ->
        S(sg=gen; so=owner; st=ticket);
        if :: FREE(so,st) ->
#ifdef M8   /* the lease is thought to be exclusive: plain store instead of a CAS */
              S(owner=c+1; none_hold(); ok=1)
#else
              S(if :: CASOK -> none_hold(); owner=c+1; ok=1 :: else -> ok=0 fi)
#endif
           :: else -> ok=0 fi;
        if :: ok ->
           if :: skip -> S(assert(O[c]==0); O[c]=1; holds[t]=1; hgen[t]=sg)                    /* a handle */
#ifdef LATER
              :: skip -> S(assert(O[c]==0); K[t]=1)                                            /* refill of the cache */
#endif
              fi
           :: else fi
        :: else fi; ok=0; sg=0; so=0; st=0
#ifdef LATER
  /* ---- allocate from my owned cache: no atomic step ---- */
  :: ops<MYOPS && K[t] && !holds[t] -> ops++;
     S(K[t]=0);
     S(sg=gen);
     S(none_hold(); assert(owner==c+1 && ticket==0 && O[c]==0); O[c]=1; holds[t]=1; hgen[t]=sg); sg=0
#endif
  /* ---- make a token of what I hold (as owner or borrower) ---- */
  :: ops<=MYOPS && holds[t] && !mk -> mk=1;
#ifdef M2
     S(tok=hgen[t]; tokset=1); S(T[c]=hgen[t])
#else
     S(T[c]=hgen[t]); S(tok=hgen[t]; tokset=1)
#endif
#ifdef CLONE
  :: ops<MYOPS && t==0 && holds[0] && !mbox -> ops++;             /* clone and give it to the sibling */
     S(if :: O[0]>0 -> O[0]=O[0]+1; mbox=1; mgen=hgen[0] :: else fi)
  :: t==1 && mbox && !holds[1] -> S(mbox=0; holds[1]=1; hgen[1]=mgen; mgen=0)
#endif
  /* ---- acquire a token, stale or not: the borrower path for every process, the owner's too ---- */
  :: ops<MYOPS && !holds[t] && tokset -> ops++;
     S(g=tok); ok=0;
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
                    S(holds[t]=1; hgen[t]=g); break
#else
                    S(if :: gen==g -> holds[t]=1; hgen[t]=g; ok=1 :: else fi);
                    if :: ok -> ok=0; break :: else -> goto DROP fi
#endif
                 :: else fi
        fi
     od;
     if :: ok ->
        S(H[c]=1);
        do
        :: skip -> S(sg=gen; so=owner; st=ticket);
           if :: sg!=g || FREE(so,st) -> S(H[c]=0); reap(); break :: else fi;
           S(if :: CASOK -> ticket=ticket+1; holds[t]=1; hgen[t]=sg; ok=1 :: else -> ok=0 fi);
           if :: ok -> break :: else fi
        od;
        S(B[c]=(holds[t]->1:0))
     :: else fi; ok=0; g=0; n=0; sg=0; so=0; st=0
  /* ---- release ---- */
  :: holds[t] ->
     assert(gen==hgen[t] && !FREE(owner,ticket)); mk=0;
     S(sg=gen; so=owner; st=ticket);
     S(n=O[c]);
     if
     :: n==1 ->
#ifndef M1
        S(ok=(T[c]!=sg));
#else
        ok=1;
#endif
        if :: ok ->                                           /* owner, last handle, no token of this generation: nobody else */
#ifdef LATER
              if :: keep=1 :: keep=0 fi;
#endif
#ifndef M3
              S(O[c]=0; holds[t]=0);
#endif
              S(assert(CASOK && so==c+1 && st==0); assert((t==0||!holds[0]) && (t==1||!holds[1]) && (t==2||!holds[2]) && !(mbox && !killed[0])); gen=sg+1; owner=(keep->c+1:0); ticket=0);
#ifdef M3
              S(O[c]=0; holds[t]=0);
#endif
              goto HINT
           :: else fi
     :: else fi;
     S(holds[t]=0);                                           /* ghost: the handle is gone, the count is not yet */
#ifdef M5
     if :: n==1 -> S(O[c]=0); goto LASTO :: else -> skip fi;
#endif
     do
     :: skip -> S(n=O[c]);
        if :: n>0 -> S(if :: O[c]==n -> O[c]=n-1; ok=1 :: else -> ok=0 fi);
              if :: ok && n==1 -> goto LASTO :: ok && n>1 -> goto NEXT :: else fi
           :: else -> break fi
     od;
DROP:
     do
     :: skip -> S(n=B[c]); assert(n!=0 && n!=CHANGING);
        S(if :: B[c]==n -> B[c]=(n==1->CHANGING:n-1); ok=1 :: else -> ok=0 fi);
        if :: ok -> break :: else fi
     od;
     ok=0;
     if :: n==1 -> S(H[c]=0); reap(); S(B[c]=0) :: else fi;
     goto NEXT;
LASTO:  /* last owner handle; a token may exist */
     S(sg=gen; so=owner; st=ticket); assert(so==c+1);
     do
     :: n=0;
#ifdef LATER
        if :: keep=1 :: keep=0 fi;
#endif
        if :: st!=0 ->
#ifndef M6
              S(n=H[0]); if :: n==0 -> S(n=H[1]) :: else fi
#endif
           :: else fi;
        if :: n==0 ->                                         /* never borrowed, or all have returned */
#ifdef M9
              S(none_hold(); gen=gen+1; owner=(keep->c+1:0); ticket=0; ok=1);
#else
#ifdef M4
              S(if :: CASOK -> if :: keep -> ticket=0 :: else -> none_hold(); gen=gen+1; owner=0; ticket=0 fi; ok=1 :: else -> ok=0 fi);
#else
              S(if :: CASOK -> none_hold(); gen=gen+1; owner=(keep->c+1:0); ticket=0; ok=1 :: else -> ok=0 fi);
#endif
#endif
              if :: ok -> goto HINT :: else fi
           :: else ->
              S(if :: CASOK -> owner=0; ticket=ticket+1; ok=1 :: else -> ok=0 fi);
              if :: ok -> reap(); goto NEXT :: else fi
        fi;
        S(sg=gen; so=owner; st=ticket)
     od;
HINT:
     if :: keep -> S(assert(!K[t]); K[t]=1)
#ifdef LATER
        :: !keep -> S(loan[t]=1)
#endif
        :: !keep -> S(listed=1) fi;
     goto NEXT
  /* ---- sweep the dead process ---- */
  :: ops<MYOPS && dead[1-c] -> ops++; d=1-c;
     S(if :: dead[d] -> dead[d]=0; ok=1 :: else -> ok=0 fi);
     if :: ok ->
        do
        :: skip -> S(sg=gen; so=owner; st=ticket);
           if :: so!=d+1 -> break :: else fi;
           S(if :: CASOK -> owner=0; ticket=ticket+1; ok=1 :: else -> ok=0 fi); if :: ok -> break :: else fi
        od;
        S(H[d]=0);
#ifdef LATER
        S(if :: d==0 -> loan[0]=0; loan[1]=0 :: else -> loan[2]=0 fi);
#endif
        reap(); S(ok=FREE(owner,ticket)); if :: ok -> S(listed=1) :: else fi
     :: else fi
#ifdef LATER
  /* ---- flush of the cache (full, asked for, or at thread exit), return of the lease ---- */
  :: K[t] -> S(K[t]=0); S(sg=gen); S(none_hold(); assert(owner==c+1 && ticket==0 && gen==sg); owner=0); S(listed=1)
  :: loan[t] -> S(loan[t]=0); S(listed=1)
#endif
  :: ops>=MYOPS && !holds[t] && !K[t] && !loan[t] && !(t==1 && (mbox || alive[0]==2)) -> break
NEXT: ok=0; n=0; sg=0; so=0; st=0; keep=0; g=0
  od;
DEAD:
  atomic{ holds[t]=0; K[t]=0; mk=0; sg=0; so=0; st=0; g=0; n=0; d=0; keep=0; ok=0; ops=0; alive[c]--;
          if :: alive[c]==0 && killed[c] -> dead[c]=1 :: else fi }
}
init {
  atomic{ T[0]=0; T[1]=0; alive[0]=2; alive[1]=1; run thread(0); run thread(1); run thread(2) }
  (_nr_pr==1);
  atomic{
    if :: killed[0] -> H[0]=0; if :: owner==1 -> owner=0; ticket=ticket+1 :: else fi :: else fi;
    if :: killed[1] -> H[1]=0; if :: owner==2 -> owner=0; ticket=ticket+1 :: else fi :: else fi;
    if :: !FREE(owner,ticket) && owner==0 && !H[0] && !H[1] && (killed[0] || killed[1]) -> gen=gen+1; ticket=0 :: else fi;
    if :: FREE(owner,ticket) && (killed[0] || killed[1]) -> listed=1 :: else fi;
    assert(FREE(owner,ticket) && listed && !H[0] && !H[1]);
    assert(killed[0] || (O[0]==0 && B[0]==0)); assert(killed[1] || (O[1]==0 && B[1]==0))
  }
}
