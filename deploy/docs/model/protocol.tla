------------------------------ MODULE protocol ------------------------------
(* One partition of the topic, from its log to ClickHouse: intent, INSERT,     *)
(* journal, recovery by comparison. README.md tells what each part stands for. *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS
  Slots,           \* processes that may own the partition
  N, MaxBatch,     \* records 1..N; a batch has 1..MaxBatch of them
  MaxFaults,       \* crashes, lost answers, time-outs, late messages
  MaxSteals,       \* take-overs from a member that is alive: it becomes a zombie
  MaxOps,          \* offsets set or deleted by an operator
  MaxDisasters,    \* rows or journal lost by ClickHouse
  \* What the outside may do.
  DelayedArrival,  \* an INSERT may reach ClickHouse after Stop found nothing
  LateCommits,     \* a commit without answer may be carried out much later
  WholeTokens,     \* a token is remembered for the INSERT, not for each part
  Partial,         \* an INSERT over two table partitions may leave one
  \* Steps taken out (TRUE: taken out). All FALSE is the protocol.
  NoIntent, IntentAfterInsert, NoToken, NoCompare, JournalFirst,
  MendUnderOldToken, StartAtCommit, NoStop, ChangedIntent, CommitByEnded,
  LetterAfterJournal,
  StopExact,       \* Stop ends only the statement the open intent names
  MendUnchecked,   \* a mend's INSERT does not ask how old its intent is
  FreshFromAnswer, \* an intent's age counts from its answer, not its sending
  UniqueMends,     \* a mend's token is random, not the next of the batch's own
  HorizonForgotten,\* how far to compare is not kept in the intent
  ForeignTrusted,  \* an operator's commit says how far to compare
  NoRecommit,      \* an old intent is not committed again before its INSERT
  ForgetStanding   \* rows found by comparison are not put into the index

VARIABLES
  cur, gen,        \* the coordinator: who owns, in which generation
  com,             \* the group's commit
  late,            \* commits on their way that nobody waits for
  rows,            \* event_log: how often each origin is there
  toks,            \* tokens ClickHouse remembers
  fly,             \* INSERTs into event_log on their way or running
  jr, fate,        \* journal: offsets of done ranges; fates
  jfly,            \* INSERTs into the journal that nobody waits for
  dlq,             \* dead letters acknowledged
  st,              \* the owner in each slot
  faults, steals, ops, disasters, uniq,
  hurt,            \* ClickHouse has lost something
  cut,             \* the journal has lost something
  gone             \* offsets whose row or fate was lost and not decided since

vars == <<cur, gen, com, late, rows, toks, fly, jr, fate, jfly, dlq, st,
          faults, steals, ops, disasters, uniq, hurt, cut, gone>>
kafka  == <<cur, gen, com, late>>
house  == <<rows, toks, fly, jr, fate, jfly>>
budget == <<faults, steals, ops, disasters>>
marks  == <<hurt, cut, gone>>

None == "none"
Offsets == 1..N
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b
MaxOf(S) == IF S = {} THEN 0 ELSE CHOOSE x \in S : \A y \in S : y <= x
MinOf(S) == CHOOSE x \in S : \A y \in S : y >= x

----------------------------------------------------------------------------
(* The log. Two keys in two table partitions share a batch; then a duplicate, *)
(* a dead letter, a conflict, a new key.                                       *)
Key     == <<"a", "b", "a", "-", "b", "c">>
Payload == <<"x", "y", "x", "-", "z", "v">>
Part    == <<1, 2, 1, 0, 2, 2>>

Earlier(o, S) == {p \in S : p # o /\ Key[p] = Key[o]}
FateBy(o, S) == \* by the rule, S being the rows that are known
  IF Key[o] = "-" THEN "dead"
  ELSE IF Earlier(o, S) = {} THEN "row"
  ELSE IF Payload[MinOf(Earlier(o, S))] = Payload[o] THEN "duplicate" ELSE "conflict"
Oracle(o) == FateBy(o, 1..(o - 1))

(* dedup.Decide over f..l: what stands, stands; the rest by the rule in order. *)
Stands(o, compare) == compare /\ (rows[o] > 0 \/ fate[o] # None)
RECURSIVE Decide(_, _, _, _, _)
Decide(f, l, compare, here, idx) ==
  IF f > l THEN [w |-> {}, lines |-> {}] ELSE
  LET known == IF Earlier(f, here) # {} THEN here ELSE idx
      d == IF Stands(f, compare) THEN (IF rows[f] > 0 THEN "row" ELSE fate[f])
           ELSE FateBy(f, known)
      rest == Decide(f + 1, l, compare, IF d = "row" THEN here \cup {f} ELSE here, idx)
  IN IF Stands(f, compare) THEN rest
     ELSE IF d = "row" THEN [rest EXCEPT !.w = @ \cup {f}]
     ELSE [rest EXCEPT !.lines = @ \cup {<<f, d>>}]

----------------------------------------------------------------------------
Symmetry == Permutations(Slots)
NoCommit == [kind |-> "none", off |-> 0, last |-> 0, re |-> 0, hz |-> 0]
Idle == [pc |-> "idle", gen |-> 0, fresh |-> FALSE, next |-> 0, cap |-> 0, cmp |-> 0,
         open |-> FALSE, sent |-> NoCommit, idx |-> {}, mode |-> "live", p |-> 0, to |-> 0,
         rl |-> 0, f |-> 0, l |-> 0, w |-> {}, wa |-> {}, lines |-> {}, att |-> 0,
         tok |-> <<0, 0, 0>>, compare |-> FALSE, c |-> NoCommit, then |-> "", clean |-> TRUE]
(* Another run of the same incarnation: only an unanswered commit is remembered. *)
Again(s) == [Idle EXCEPT !.pc = "recover", !.gen = st[s].gen, !.fresh = st[s].fresh, !.sent = st[s].sent]

Init ==
  /\ cur = None /\ gen = 0 /\ com = NoCommit /\ late = {}
  /\ rows = [o \in Offsets |-> 0] /\ toks = {} /\ fly = {}
  /\ jr = {} /\ fate = [o \in Offsets |-> None] /\ jfly = {} /\ dlq = {}
  /\ st = [s \in Slots |-> Idle]
  /\ faults = 0 /\ steals = 0 /\ ops = 0 /\ disasters = 0 /\ uniq = 0
  /\ hurt = FALSE /\ cut = FALSE /\ gone = {}

CanFail == faults < MaxFaults
Set(s, r) == st' = [st EXCEPT ![s] = r]
Step(s, pc) == Set(s, [st[s] EXCEPT !.pc = pc])
Fault == CanFail /\ faults' = faults + 1
NoFault == faults' = faults
Rest == UNCHANGED <<steals, ops, disasters>>

----------------------------------------------------------------------------
(* The group *)

TakeOver(s) ==
  /\ st[s].pc = "idle"
  /\ LET alive == cur # None /\ cur # s /\ st[cur].pc # "idle" IN
     /\ alive => steals < MaxSteals
     /\ steals' = IF alive THEN steals + 1 ELSE steals
  /\ cur' = s /\ gen' = gen + 1
  \* By now the session time-out has passed: every intent of another is old.
  /\ st' = [t \in Slots |-> IF t = s THEN [Idle EXCEPT !.pc = "recover", !.gen = gen + 1]
                            ELSE [st[t] EXCEPT !.fresh = FALSE]]
  /\ UNCHANGED <<com, late, house, dlq, faults, ops, disasters, uniq, marks>>

Crash(s) ==
  /\ st[s].pc # "idle" /\ Fault
  /\ Set(s, Idle) /\ cur' = IF cur = s THEN None ELSE cur
  /\ UNCHANGED <<gen, com, late, house, dlq, uniq, marks>> /\ Rest

(* The group is empty (its members are dead or frozen) and its offsets are set *)
(* by hand, or deleted.                                                        *)
Operator ==
  /\ ops < MaxOps /\ ops' = ops + 1
  /\ cur' = None /\ gen' = gen + 1
  /\ st' = [t \in Slots |-> [st[t] EXCEPT !.fresh = FALSE]]
  /\ \/ com' = NoCommit
     \/ \E o \in 1..(N + 1) : com' = [NoCommit EXCEPT !.kind = "foreign", !.off = o]
  /\ UNCHANGED <<late, house, dlq, faults, steals, disasters, uniq, marks>>

Accepts(s) == (cur = s /\ st[s].gen = gen) \/ CommitByEnded

CommitStep(s) ==
  /\ st[s].pc = "commit"
  /\ UNCHANGED <<cur, gen, house, dlq, uniq, marks>> /\ Rest
  /\ LET c == st[s].c
         \* only an intent is remembered; ChangedIntent forgets it too
         sending == [st[s] EXCEPT !.sent = IF ChangedIntent THEN NoCommit ELSE c, !.fresh = TRUE]
         again == [Again(s) EXCEPT !.sent = sending.sent, !.fresh = TRUE]
     IN \/ /\ ~Accepts(s) /\ Set(s, Idle) /\ NoFault /\ UNCHANGED <<com, late>>
        \/ /\ Accepts(s) /\ com' = c /\ UNCHANGED late
           /\ \/ NoFault /\ Set(s, [sending EXCEPT !.pc = "ack"])
              \/ Fault /\ Set(s, again)
        \/ /\ Accepts(s) /\ Fault /\ UNCHANGED com /\ Set(s, again)
           /\ \/ late' = late
              \/ LateCommits /\ late' = late \cup {[c |-> c, s |-> s, gen |-> gen]}

Ack(s) ==
  /\ st[s].pc = "ack"
  /\ Set(s, [st[s] EXCEPT !.pc = st[s].then, !.sent = NoCommit, !.open = (st[s].c.kind = "intent"),
                          !.fresh = IF FreshFromAnswer THEN TRUE ELSE @])
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, marks>>

LateCommit ==
  \E m \in late :
    /\ late' = late \ {m}
    /\ com' = IF cur = m.s /\ gen = m.gen THEN m.c ELSE com
    /\ UNCHANGED <<cur, gen, house, dlq, st, budget, uniq, marks>>

----------------------------------------------------------------------------
(* ClickHouse *)

Tok(q, o) == IF WholeTokens THEN <<q.tok, 0>> ELSE <<q.tok, Part[o]>>
Taken(q, S) == {o \in S : NoToken \/ Tok(q, o) \notin toks}
Store(q, S) == \* the rows S of q are committed, but for those whose token is used
  /\ rows' = [o \in Offsets |-> IF o \in Taken(q, S) THEN Min(rows[o] + 1, 2) ELSE rows[o]]
  /\ toks' = toks \cup {Tok(q, o) : o \in S}
Waits(q) == st[q.s].pc = "wait" /\ st[q.s].tok = q.tok /\ st[q.s].w = q.w

Arrive ==
  \E q \in fly :
    /\ q.at = "net" /\ fly' = (fly \ {q}) \cup {[q EXCEPT !.at = "ch"]}
    /\ UNCHANGED <<kafka, rows, toks, jr, fate, jfly, dlq, st, budget, uniq, marks>>

(* The INSERT is carried out; its answer comes, or is lost. *)
Apply ==
  \E q \in fly :
    /\ q.at = "ch" /\ Store(q, q.w) /\ fly' = fly \ {q}
    /\ IF Waits(q) THEN \/ NoFault /\ Step(q.s, "after")
                        \/ Fault /\ UNCHANGED st
       ELSE NoFault /\ UNCHANGED st
    /\ UNCHANGED <<kafka, jr, fate, jfly, dlq, uniq, marks>> /\ Rest

(* It fails or is killed after one of its table partitions was committed. *)
ApplyPart ==
  \E q \in fly : \E pt \in {Part[o] : o \in q.w} :
    /\ Partial /\ q.at = "ch" /\ Fault
    /\ LET S == {o \in q.w : Part[o] = pt} IN
       /\ S # q.w
       /\ \/ Store(q, S)
          \/ /\ WholeTokens /\ toks' = toks
             /\ rows' = [o \in Offsets |-> IF o \in Taken(q, S) THEN Min(rows[o] + 1, 2) ELSE rows[o]]
    /\ fly' = fly \ {q}
    /\ UNCHANGED <<kafka, jr, fate, jfly, dlq, st, uniq, marks>> /\ Rest

JournalNow(e) ==
  /\ jr' = jr \cup e.range
  /\ fate' = [o \in Offsets |->
       IF fate[o] = None /\ \E d \in {x[2] : x \in e.lines} : <<o, d>> \in e.lines
       THEN (CHOOSE x \in e.lines : x[1] = o)[2] ELSE fate[o]]

LateJournal ==
  \E e \in jfly :
    /\ jfly' = jfly \ {e} /\ JournalNow(e)
    /\ UNCHANGED <<kafka, rows, toks, fly, dlq, st, budget, uniq, marks>>

(* Rows are deleted (their tokens stay), the journal loses a range, or both. *)
Disaster ==
  /\ disasters < MaxDisasters /\ disasters' = disasters + 1
  /\ \E lo \in Offsets : \E hi \in lo..N :
     LET S == lo..hi IN
     \E what \in {"rows", "journal", "both"} :
       /\ IF what = "journal" THEN UNCHANGED rows
          ELSE rows' = [o \in Offsets |-> IF o \in S THEN 0 ELSE rows[o]]
       /\ IF what = "rows" THEN UNCHANGED <<jr, fate, cut>>
          ELSE /\ jr' = jr \ S /\ cut' = TRUE
               /\ fate' = [o \in Offsets |-> IF o \in S THEN None ELSE fate[o]]
       /\ gone' = gone \cup S
       /\ <<rows, jr, fate>>' # <<rows, jr, fate>>
  /\ hurt' = TRUE
  /\ st' = [s \in Slots |-> [st[s] EXCEPT !.clean = FALSE]]
  /\ UNCHANGED <<kafka, toks, fly, jfly, dlq, faults, steals, ops, uniq>>

----------------------------------------------------------------------------
(* Recovery *)

End == MinOf((1..(N + 1)) \ jr)
Beyond == MaxOf({o \in Offsets : o >= End /\ (rows[o] > 0 \/ fate[o] # None)})

(* Read the commit; end what may be running. *)
Recover(s) ==
  /\ st[s].pc = "recover"
  /\ LET named(q) == com.kind = "intent" /\ q.tok = <<com.off, com.last, 0>>
         ended(q) == q.at = "ch" /\ ~NoStop /\ (StopExact => named(q))
     IN fly' = {q \in fly : ~ended(q)}
  /\ Set(s, [st[s] EXCEPT !.pc = "seen", !.c = com])
  /\ UNCHANGED <<kafka, rows, toks, jr, fate, jfly, dlq, budget, uniq, marks>>

(* Ask where ClickHouse stands; load the index; decide whether to go back. *)
Seen(s) ==
  /\ st[s].pc = "seen"
  /\ LET c == st[s].c
         next == IF StartAtCommit /\ c.kind # "none" THEN c.off ELSE End
         isOpen == c.kind = "intent"
         sent == st[s].sent
         cap == IF sent.kind = "intent" /\ sent.off = next /\ sent.re = 0 THEN sent.last
                ELSE IF isOpen /\ c.off = next /\ c.last >= next THEN c.last ELSE 0
         cmp == MaxOf({Beyond, cap, IF HorizonForgotten THEN 0 ELSE c.hz,
                       IF c.kind = "none" \/ (c.kind = "foreign" /\ ~ForeignTrusted) THEN N
                       ELSE Min(c.off - 1, N)})
         \* An unanswered re-read is taken up as if it had been found.
         back == IF c.kind = "foreign" THEN next
                 ELSE IF isOpen /\ c.re > 0 THEN Min(c.re, next) ELSE 0
         goes == c.off >= 1 /\ c.off < next /\ back > c.off
     IN Set(s, [st[s] EXCEPT !.next = next, !.cap = cap, !.cmp = IF NoCompare THEN 0 ELSE cmp,
           !.open = isOpen \/ goes,
           !.idx = {o \in Offsets : rows[o] > 0},
           !.pc = IF goes THEN "re" ELSE "form",
           !.p = IF goes THEN c.off ELSE 0, !.to = IF goes THEN back ELSE 0,
           !.rl = IF goes /\ isOpen /\ ~UniqueMends THEN Min(c.last, back - 1) ELSE 0,
           !.c = NoCommit])
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, marks>>

----------------------------------------------------------------------------
(* The batch at hand *)

Island(o) == CHOOSE e \in o..N : (o..e \subseteq jr) /\ (e = N \/ (e + 1) \notin jr)

(* After the intent: rows, then the journal; the mutants change the order. *)
First == IF JournalFirst THEN "journal" ELSE "send"
Begin(s, r, f, l, compare, re) ==
  LET found == {o \in f..l : ~ForgetStanding /\ compare /\ rows[o] > 0}
      d == Decide(f, l, compare, {}, r.idx)
      c == [kind |-> "intent", off |-> f, last |-> l, re |-> re,
            hz |-> IF HorizonForgotten THEN 0 ELSE r.cmp]
      direct == NoIntent \/ IntentAfterInsert
  IN [r EXCEPT !.f = f, !.l = l, !.w = d.w, !.wa = d.w \cup found, !.lines = d.lines, !.att = 0,
        !.compare = compare, !.c = c, !.clean = TRUE,
        !.pc = IF direct THEN First ELSE "commit", !.then = First,
        !.fresh = IF direct THEN TRUE ELSE @]

Form(s) ==
  /\ st[s].pc = "form"
  /\ LET r == st[s] IN
     \/ \* the next batch
        /\ r.next <= N /\ r.next \notin jr
        /\ \E l \in r.next..Min(N, r.next + MaxBatch - 1) :
           /\ r.cap >= r.next => l = r.cap
           /\ (r.cap < r.next /\ r.cmp >= r.next) => l <= r.cmp
           /\ (r.next..l) \cap jr = {}
           /\ Set(s, Begin(s, [r EXCEPT !.mode = "live"], r.next, l, r.cmp >= r.next, 0))
     \/ \* past an island, which is read again
        /\ r.next <= N /\ r.next \in jr
        /\ Set(s, [r EXCEPT !.pc = "re", !.p = r.next, !.to = Island(r.next) + 1,
                            !.next = Island(r.next) + 1, !.rl = 0])
     \/ \* nothing more for the moment: close
        /\ r.open /\ r.cap < r.next
        /\ Set(s, [r EXCEPT !.pc = "commit", !.then = "form", !.mode = "live",
             !.c = [kind |-> "closed", off |-> r.next, last |-> r.next - 1, re |-> 0,
                    hz |-> IF HorizonForgotten THEN 0 ELSE r.cmp]])
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, marks>>

(* Read a journaled range again: what is missing is written, all else stands. *)
Reread(s) ==
  /\ st[s].pc = "re"
  /\ LET r == st[s] IN
     IF r.p >= r.to
     THEN /\ Set(s, [r EXCEPT !.pc = "form", !.p = 0, !.to = 0, !.mode = "live"])
          /\ UNCHANGED gone
     ELSE \E l \in r.p..Min(r.to - 1, r.p + MaxBatch - 1) :
          /\ r.rl >= r.p => l = r.rl
          /\ LET b == Begin(s, [r EXCEPT !.mode = "re"], r.p, l, TRUE, r.to) IN
             IF b.w = {} /\ b.lines = {}
             THEN Set(s, [r EXCEPT !.p = l + 1, !.idx = @ \cup b.wa]) /\ gone' = gone \ (r.p..l)
             ELSE Set(s, b) /\ UNCHANGED gone
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, hurt, cut>>

Dead(r) == {x[1] : x \in {y \in r.lines : y[2] = "dead"}}

(* Dead letters, then the INSERT, if the intent is still young. *)
Send(s) ==
  /\ st[s].pc = "send"
  /\ dlq' = IF LetterAfterJournal THEN dlq ELSE dlq \cup Dead(st[s])
  /\ LET r == st[s]
         mend == r.mode = "re" \/ r.att > 0
         n == IF ~mend \/ MendUnderOldToken THEN 0
              ELSE IF UniqueMends THEN uniq + 10 ELSE r.att
         tok == <<r.f, r.l, n>>
         may == r.fresh \/ NoIntent \/ IntentAfterInsert \/ NoRecommit \/ (mend /\ MendUnchecked)
     IN IF r.w = {} THEN Step(s, IF IntentAfterInsert THEN "commit" ELSE IF JournalFirst THEN "done" ELSE "journal")
                         /\ UNCHANGED <<fly, uniq>>
        ELSE IF ~may THEN Set(s, [r EXCEPT !.pc = "commit", !.then = "send"]) /\ UNCHANGED <<fly, uniq>>
        ELSE /\ fly' = fly \cup {[s |-> s, tok |-> tok, w |-> r.w, at |-> IF DelayedArrival THEN "net" ELSE "ch"]}
             /\ uniq' = IF mend /\ UniqueMends THEN uniq + 1 ELSE uniq
             /\ Set(s, [r EXCEPT !.pc = "wait", !.tok = tok])
  /\ UNCHANGED <<kafka, rows, toks, jr, fate, jfly, budget, marks>>

(* No answer: the owner recovers anew. *)
Fail(s) ==
  /\ st[s].pc = "wait"
  /\ IF \E q \in fly : Waits(q) /\ q.s = s THEN Fault ELSE NoFault
  /\ Set(s, Again(s))
  /\ UNCHANGED <<kafka, house, dlq, uniq, marks>> /\ Rest

After(s) ==
  /\ st[s].pc = "after"
  /\ LET r == st[s]
         missing == {o \in r.w : rows[o] = 0}
         done == IF IntentAfterInsert THEN "commit" ELSE IF JournalFirst THEN "done" ELSE "journal"
     IN IF r.compare /\ ~NoCompare /\ ~MendUnderOldToken /\ missing # {}
        THEN Set(s, [r EXCEPT !.pc = "send", !.w = missing, !.att = r.att + 1])
        ELSE Set(s, [r EXCEPT !.pc = done, !.then = "journal"])
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, marks>>

Finished(r) == \* the next thing to do once the batch is done
  LET q == [r EXCEPT !.w = {}, !.wa = {}, !.lines = {}, !.tok = <<0, 0, 0>>, !.att = 0, !.f = 0, !.l = 0,
                     !.c = NoCommit, !.then = "", !.compare = FALSE, !.idx = @ \cup r.wa]
  IN IF r.mode = "re" THEN [q EXCEPT !.pc = "re", !.p = r.l + 1]
     ELSE [q EXCEPT !.pc = "form", !.next = r.l + 1]

Journal(s) ==
  /\ st[s].pc = "journal"
  /\ UNCHANGED <<kafka, rows, toks, fly, uniq, hurt, cut>> /\ Rest
  /\ LET r == st[s]
         e == [range |-> IF r.mode = "re" THEN {} ELSE r.f..r.l, lines |-> r.lines]
     IN \/ /\ JournalNow(e) /\ UNCHANGED jfly
           /\ \/ /\ NoFault
                 /\ dlq' = IF LetterAfterJournal THEN dlq \cup Dead(r) ELSE dlq
                 /\ gone' = IF r.clean THEN gone \ (r.f..r.l) ELSE gone
                 /\ IF JournalFirst THEN Step(s, "send") ELSE Set(s, Finished(r))
              \/ Fault /\ Set(s, Again(s)) /\ UNCHANGED <<dlq, gone>>
        \/ /\ Fault /\ Set(s, Again(s)) /\ UNCHANGED <<jr, fate, dlq, gone>>
           /\ (jfly' = jfly \/ jfly' = jfly \cup {e})

Done(s) == \* only where the journal came first
  /\ st[s].pc = "done" /\ Set(s, Finished(st[s]))
  /\ UNCHANGED <<kafka, house, dlq, budget, uniq, marks>>

----------------------------------------------------------------------------
Owner(s) == \/ Recover(s) \/ Seen(s) \/ Form(s) \/ Reread(s) \/ CommitStep(s) \/ Ack(s)
            \/ Send(s) \/ Fail(s) \/ After(s) \/ Journal(s) \/ Done(s)
ClickHouse == Arrive \/ Apply \/ ApplyPart \/ LateJournal
Next == ClickHouse \/ LateCommit \/ Operator \/ Disaster
        \/ \E s \in Slots : Owner(s) \/ TakeOver(s) \/ Crash(s)
Spec == Init /\ [][Next]_vars

(* What must come about: the faults end, what was sent arrives, members come. *)
Fair == /\ WF_vars(Arrive) /\ WF_vars(Apply) /\ WF_vars(LateJournal) /\ WF_vars(LateCommit)
        /\ \A s \in Slots : /\ WF_vars(Owner(s))
                            /\ WF_vars(TakeOver(s) /\ (cur = None \/ st[cur].pc = "idle"))
Live == Spec /\ Fair

----------------------------------------------------------------------------
(* Invariants *)

Repeat == \/ \E o \in Offsets : rows[o] > 1
          \/ \E o, p \in Offsets : o # p /\ Key[o] = Key[p] /\ rows[o] > 0 /\ rows[p] > 0
NoRepeat     == ~hurt => ~Repeat
NoRepeatEver == ~Repeat
(* What the journal says is done is a row or has a fate; what was lost is     *)
(* excepted until it was decided again.                                        *)
Whole   == \A o \in jr \ gone : rows[o] > 0 \/ fate[o] # None
NoGap   == ~cut => jr = 1..Cardinality(jr)
Fates   == ~hurt => \A o \in Offsets : /\ rows[o] > 0 => Oracle(o) = "row"
                                       /\ fate[o] # None => fate[o] = Oracle(o)
Letters == \A o \in Offsets : fate[o] = "dead" => o \in dlq
Everything == <>[](jr = Offsets)
=============================================================================
