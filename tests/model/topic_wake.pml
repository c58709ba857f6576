/* Topics: who sleeps until there is a message, or until there is room for one, and who wakes him: zerocp.h, sections
   >>wait, >>publish and >>receive, step by step, with every interleaving but no weak memory (the barriers are
   protocol.c's). NP publishers with a ring of one cell, NS subscribers, each a client with a slot of its own. In
   zerocp.h all who sleep look again after 0.1 s; here they do not: so whoever sleeps and could go on is found, as an
   invalid end state. Run by ./spin; by hand:
     spin -a topic_wake.pml && gcc -w -O1 -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -o pan pan.c && ./pan -m2000000 -n
   Each publisher has PUBS messages. A subscriber goes on until it has the last one of the last publisher. It is older
   than they are. What there may be besides:
     -DRELIABLE  publishers wait for subscribers
     -DYOUNG     subscribers come when they like, and begin with what is there
     -DLEAVES    they leave when they like
     -DKILL      publisher 0 is killed at any step; publisher 1, which comes then, has to wake
     -DSIBLING   a thread of subscriber 0's process is about to sleep, too, for something else
   Mutants, each must fail: -DM1 `woken` is stored before the call, M2 the sleeper looks before it says that it sleeps,
   M3 it does not raise attention, M4 the publisher looks at attention before it shows the message, M5 the sleeper reads
   `wakes` after its look, M6 who has read looks whether the publisher waits, and then moves its head, M7 who leaves
   does not wake who waits for it, M8 attention is noted after the waking, M9 a publisher does not look with its first
   message, M10 who says that it sleeps leaves out what its siblings sleep for, M11 a sleeper whose look has met a
   publisher sleeps nevertheless, M12 who waits says so after its look. */
#ifndef NP
#define NP 1
#endif
#ifndef NS
#define NS 1
#endif
#ifndef PUBS
#define PUBS 2
#endif
#define GONE 64
#define NUMBER(l) ((l)&63)
#define PAIR(p,s) ((p)*NS+(s))
#define MESSAGES 1               /* what is slept for: bits */
#define OTHERS 2
#define EITHER 3

byte epoch=0; bit open[NP], waits[NP], here[NS], made[NP*NS];
byte attention[NP], last[NP], count[NP], head[NP*NS];
/* Slots: publisher p's is p, subscriber s's NP + s. `sleeps` is one word: the count and what for. */
byte wakes[NP+NS], sleeps[NP+NS], what[NP+NS], woken[NP+NS];
bit asleep[NP+NS], has_left;

#ifdef KILL
#define K(x) atomic { if :: skip :: is_killed -> goto DEAD fi; x }
#else
#define K(x) atomic { x }
#endif

/* Says that thread sleeps. */
inline announce(c, bits) {
#ifdef M10
  K(sleeps[c]++; what[c]=bits)
#else
  K(what[c]=(sleeps[c]!=woken[c] -> what[c]|bits : bits); sleeps[c]++)
#endif
}
inline wake(c, bits) {
  K(n=sleeps[c]; b=what[c]);
  if
  :: n!=woken[c] && (b&bits) ->
#ifdef M1
     K(woken[c]=n);
#endif
     K(wakes[c]++);
     K(asleep[c]=0);
#ifndef M1
     K(woken[c]=n)
#endif
  :: else
  fi; n=0; b=0
}
inline sleep(c) {
  atomic { if :: wakes[c]==w -> asleep[c]=1 :: else fi };
  if :: !asleep[c] -> w=0 fi
}

/* ---- A publisher ---- */
#define HEAD(s) (made[PAIR(p,s)] -> head[PAIR(p,s)] : 0)
#define BEHIND(s) (here[s] && HEAD(s)<t)
#if NS == 1
#define ANY_BEHIND BEHIND(0)
#else
#define ANY_BEHIND (BEHIND(0) || BEHIND(1))
#endif
#ifdef RELIABLE
#define MAKE_ROOM K(if :: !ANY_BEHIND -> last[p]=t+GONE; ok=1 :: else fi)
#else
#define MAKE_ROOM K(last[p]=t+GONE; ok=1)
#endif

proctype publisher(byte p) {
  byte t=0, noted=0, w=0, n=0, b=0, s=0; bit ok=0, is_killed=(p==0);
#ifdef KILL
  if :: p==0 || has_left -> skip fi;
#endif
  K(epoch++);
#ifdef M9
  K(noted=attention[p]; open[p]=1);
#else
  K(noted=attention[p]-1; open[p]=1);
#endif
  K(epoch++);
  do
  :: t<PUBS ->
     if
     :: t>0 ->
        MAKE_ROOM;
#ifdef RELIABLE
        do
        :: ok -> break
        :: !ok ->
           K(w=wakes[p]);
           announce(p, MESSAGES);
#ifndef M12
           K(waits[p]=1);
#endif
           MAKE_ROOM;
#ifdef M12
           K(waits[p]=1);
#endif
           if :: !ok -> sleep(p) :: else fi
        od;
        K(waits[p]=0);
#endif
        ok=0
     :: else
     fi;
#ifdef M4
     K(ok=(attention[p]!=noted));
#endif
     K(last[p]=t+1); t++;
     K(count[p]=t);
#ifndef M4
     K(ok=(attention[p]!=noted));
#endif
     if
     :: ok ->
#ifndef M8
        K(noted=attention[p]);
#endif
        do :: s<NS -> if :: here[s] -> wake(NP+s, MESSAGES) :: else fi; s++ :: else -> break od; s=0;
#ifdef M8
        K(noted=attention[p]);
#endif
     :: else
     fi; ok=0; w=0
  :: else -> break
  od;
DEAD: has_left=1
}

/* ---- A subscriber ---- */
/* Who has appeared? Then looks at all; ok: there was something, and it was read. */
inline receive() {
  if
  :: seen!=epoch ->
     K(seen=epoch);
     do
     :: p<NP ->
        K(if :: open[p] && !knows[p] -> knows[p]=1; made[PAIR(p,s)]=1; head[PAIR(p,s)]=0; met=1 :: else fi; p++)
     :: else -> break
     od; p=0
  :: else
  fi;
  do
  :: p<NP && knows[p] ->
     K(l=last[p]);
     if
     :: NUMBER(l)>next[p] ->
        ok=(l<GONE); next[p]=NUMBER(l);
#ifdef M6
        K(b=waits[p]);
        K(head[PAIR(p,s)]=next[p]);
#else
        K(head[PAIR(p,s)]=next[p]);
        K(b=waits[p]);
#endif
        if :: b && ok -> wake(p, EITHER) :: else fi; b=0
     :: else
     fi;
     p=(ok -> NP : p+1)
  :: p<NP && !knows[p] -> p++
  :: else -> break
  od; p=0; l=0
}
/* All publishers look who sleeps; if they wait themselves, they wake. */
inline attend(whom, wakes_them) {
  do
  :: p<NP ->
     if
     :: whom ->
        K(attention[p]++);
        if :: wakes_them && waits[p] -> wake(p, MESSAGES) :: else fi
     :: else
     fi; p++
  :: else -> break
  od; p=0
}

proctype subscriber(byte s) {
  byte p=0, seen=0, l=0, w=0, n=0, b=0, next[NP]; bit ok=0, met=0, is_killed=0, knows[NP];
#ifdef YOUNG
  K(here[s]=1; epoch++; seen=epoch);
  do
  :: p<NP ->
     K(if :: open[p] -> knows[p]=1; l=count[p]; next[p]=(l -> l-1 : 0) :: else fi);
     K(if :: knows[p] -> head[PAIR(p,s)]=next[p]; made[PAIR(p,s)]=1 :: else fi); p++
  :: else -> break
  od; p=0; l=0;
  attend(open[p], 0);
#endif
  do
  :: next[NP-1]<PUBS ->
     ok=0;
     receive();
     if
     :: !ok ->
        met=0;
#ifndef M5
        K(w=wakes[NP+s]);
#endif
#ifdef M2
        receive();
#endif
        announce(NP+s, MESSAGES);
#ifndef M3
        attend(knows[p], 0);
#endif
#ifndef M2
        receive();
#endif
#ifdef M5
        K(w=wakes[NP+s]);
#endif
#ifdef M11
        met=0;
#endif
        if :: !ok && !met -> sleep(NP+s) :: else fi; w=0; met=0
     :: else
     fi
  :: next[NP-1]==PUBS -> break
#ifdef LEAVES
  :: skip -> break
#endif
  od;
  /* It leaves. */
  p=0; do :: p<NP -> K(made[PAIR(p,s)]=0; p++) :: else -> break od; p=0;
  K(here[s]=0);
  K(epoch++);
#ifndef M7
  attend(open[p], 1);
#endif
DEAD: skip
}

/* A thread of subscriber 0's process says that it sleeps, and then finds that it need not. */
proctype sibling() {
  bit is_killed=0;
  announce(NP, OTHERS);
DEAD: skip
}

init { byte i;
  atomic {
#ifndef YOUNG
    for (i : 0 .. NS-1) { here[i]=1 }
#endif
    for (i : 0 .. NP-1) { run publisher(i) }
    for (i : 0 .. NS-1) { run subscriber(i) }
#ifdef SIBLING
    run sibling();
#endif
    i=0
  }
}
