package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// round is a part of a run with its own keys, clients and history. The history is checked at the
// end of the round, so no history grows without bound.
type round struct {
	r      *runner
	number int
	prefix string
	keys   []string
	from   int64 // the first revision of this round
	h      *History
	until  int64 // when the clients were told to stop
	stock  []*clientv3.Client
	faults []Injected

	writing, watching, keeping sync.WaitGroup
	observers                  []*Observer
	leases                     *leaseholders
}

// stops end the goroutines of start.
type stops struct{ writing, keeping, watching context.CancelFunc }

// runRound injects faults until the given time, and then checks. An error ends the run: the
// cluster is not usable any more, or ctx ended before it was.
func (r *runner) runRound(ctx context.Context, number int, until time.Time) (err error) {
	if _, err := r.c.full(ctx); err != nil {
		return err
	}
	rd := r.newRound(number)
	defer func() {
		for _, cl := range rd.stock {
			err = errors.Join(err, cl.Close())
		}
	}()
	if r.programs != nil {
		if err := r.programs.begin(ctx); err != nil {
			return r.missing(err)
		}
		defer r.programs.quiet()
	}
	// The checks still run after an interruption.
	life := context.WithoutCancel(ctx)
	stop, err := rd.start(life)
	if err != nil {
		return err
	}
	defer stop.watching()
	defer stop.keeping()
	defer stop.writing()
	broken := rd.breakThings(ctx, until)
	if r.programs != nil && broken == nil {
		if err := r.programs.settled(life); err != nil {
			broken = r.missing(err)
		}
		r.programs.quiet()
	}
	err = rd.finish(life, stop)
	stop.watching()
	stop.keeping()
	rd.watching.Wait()
	rd.keeping.Wait()
	rd.sum()
	return errors.Join(broken, err)
}

// missing turns a timeout of services into a finding: an instance is lost.
func (r *runner) missing(err error) error {
	if errors.Is(err, errTimeout) {
		r.finding(CheckInstances, "%v", err)
		return nil
	}
	return err
}

func (r *runner) newRound(number int) *round {
	rd := &round{r: r, number: number, prefix: fmt.Sprintf("%s%d/", r.prefix, number)}
	for k := range r.cfg.Keys {
		rd.keys = append(rd.keys, fmt.Sprintf("%sk/%d", rd.prefix, k))
	}
	return rd
}

func (rd *round) dial() (*clientv3.Client, error) {
	cl, err := rd.r.c.dial()
	if err == nil {
		rd.stock = append(rd.stock, cl)
	}
	return cl, err
}

// start starts clients, watches and leases.
func (rd *round) start(life context.Context) (stops, error) {
	first, err := rd.dial()
	if err != nil {
		return stops{}, err
	}
	try, done := context.WithTimeout(life, rd.r.cfg.Patience)
	defer done()
	now, err := first.Get(try, rd.prefix)
	if err != nil {
		return stops{}, fmt.Errorf("read the revision: %w", err)
	}
	rd.from, rd.h = now.Header.Revision+1, NewHistory()
	rd.r.h = rd.h
	var s stops
	var writing, keeping, watching context.Context
	writing, s.writing = context.WithCancel(life)
	keeping, s.keeping = context.WithCancel(life)
	watching, s.watching = context.WithCancel(life)
	for i := range rd.r.cfg.Clients {
		stock, err := rd.dial()
		if err != nil {
			return s, err
		}
		c := rd.client(i, stock)
		if rd.r.cfg.Rate > 0 {
			c.Pause = time.Duration(float64(time.Second) * float64(rd.r.cfg.Clients) / rd.r.cfg.Rate)
		}
		rd.writing.Go(func() { c.Run(writing) })
	}
	rd.leases = &leaseholders{
		h: rd.h, stock: first, prefix: rd.prefix + "lease/", gone: map[string]int64{}, heartbeat: rd.r.c.heartbeat,
		takeovers: func(from, to int64) int {
			return rd.r.c.takeovers(rd.h.began.Add(time.Duration(from)), rd.h.began.Add(time.Duration(to)))
		},
		outage: func(from, to int64) time.Duration {
			return silence(rd.h.acked(), from, to) + rd.r.blind.within(from, to)
		},
		restarted: rd.r.cfg.Hosts > 0, extension: rd.r.cfg.Election,
	}
	if err := rd.observe(watching); err != nil {
		return s, err
	}
	rd.keeping.Go(func() { rd.leases.keep(keeping, "kept") })
	rd.writing.Go(func() { rd.leases.letExpire(writing, keeping, "not-renewed") })
	return s, nil
}

func (rd *round) client(id int, stock *clientv3.Client) *Client {
	return &Client{
		History: rd.h, ID: id, Stock: stock, Keys: rd.keys, ValueBytes: rd.r.cfg.ValueBytes, Attempt: rd.r.attempt,
		Rand: rand.New(rand.NewPCG(rd.r.cfg.Seed, uint64(rd.number)<<32+uint64(id))),
	}
}

// observe starts several kinds of watches. Some of them share a stream.
func (rd *round) observe(ctx context.Context) error {
	shared, err := rd.dial()
	if err != nil {
		return err
	}
	alone, err := rd.dial()
	if err != nil {
		return err
	}
	from := clientv3.WithRev(rd.from)
	watch := func(o *Observer, cl *clientv3.Client, key string, opts ...clientv3.OpOption) {
		o.ValueBytes = rd.r.cfg.ValueBytes
		ch := cl.Watch(ctx, key, append(opts, from, clientv3.WithPrevKV())...)
		rd.observers = append(rd.observers, o)
		rd.watching.Go(func() { o.Watch(ctx, ch) })
	}
	watch(&Observer{Name: "prefix", OnEvent: rd.leases.onEvent}, shared, rd.prefix, clientv3.WithPrefix())
	watch(&Observer{Name: "fragments"}, shared, rd.prefix, clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithProgressNotify())
	watch(&Observer{Name: "one key", Want: func(e Event) bool { return e.Key == rd.keys[0] }}, shared, rd.keys[0])
	watch(&Observer{Name: "deletes", Want: func(e Event) bool { return e.Delete }}, alone, rd.prefix, clientv3.WithPrefix(), clientv3.WithFilterPut())
	return nil
}

// finish waits until all followers are in sync, and checks the round.
func (rd *round) finish(life context.Context, stop stops) error {
	full, err := rd.r.c.full(life)
	if err != nil {
		rd.r.finding(CheckProgress, "at the end of the round: %v", err)
		return err
	}
	rd.r.sample(full)
	return rd.check(life, stop)
}

// check stops the clients of a cluster in which nothing is broken, and checks what they recorded.
func (rd *round) check(life context.Context, stop stops) error {
	rd.until = rd.h.Now()
	stop.writing()
	rd.writing.Wait()
	last, err := rd.mark(life)
	if err != nil {
		rd.r.finding(CheckProgress, "at the end of the round: %v", err)
		return err
	}
	ops := rd.h.Operations()
	rd.checkOperations(ops)
	leases, leaseOps := rd.leases.result()
	rd.checkWatches(life, slices.Concat(ops, leaseOps), last)
	for _, w := range CheckLeases(leases, rd.r.c.heartbeat) {
		rd.r.finding(CheckLease, "%s", w)
	}
	rd.r.report.addLeases(leases)
	rd.clean(life)
	return nil
}

// mark reads every key, and then makes two changes that every watch sees: a put and a delete. It
// returns the revision of the last change.
func (rd *round) mark(life context.Context) (int64, error) {
	ctx, done := context.WithTimeout(life, rd.r.cfg.Patience)
	defer done()
	c := rd.client(rd.r.cfg.Clients, rd.stock[0])
	var err error
	for _, k := range rd.keys {
		for {
			if _, err = c.Do(ctx, Request{Kind: Get, Key: k}); err == nil || ctx.Err() != nil {
				break
			}
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		if _, err = c.Do(ctx, Request{Kind: Put, Key: rd.keys[0], To: fmt.Sprintf("end.%d", i)}); err != nil {
			continue
		}
		var a Answer
		if a, err = c.Do(ctx, Request{Kind: Delete, Key: rd.keys[0]}); err == nil && a.Revision > 0 {
			return a.Revision, nil
		}
	}
	return 0, fmt.Errorf("make the last changes of the round: %w %s: %w", errTimeout, rd.r.cfg.Patience, err)
}

// undecidedAfter bounds porcupine's search.
const undecidedAfter = 2 * time.Minute

func (rd *round) checkOperations(ops []porcupine.Operation) {
	linear := CheckLinear(ops, undecidedAfter)
	switch linear.Result {
	case porcupine.Ok:
	case porcupine.Unknown:
		rd.r.finding(CheckLinearizable, "round %d: porcupine found no verdict within %s, so nothing is proved", rd.number, undecidedAfter)
	default:
		picture := filepath.Join(rd.r.work, fmt.Sprintf("counterexample-%d.html", rd.number))
		where := "see the picture in " + picture
		if err := linear.Visualize(picture); err != nil {
			where = err.Error()
		}
		rd.r.finding(CheckLinearizable, "round %d: the history is not linearizable (%s)\n%s", rd.number, where, linear.Explain())
	}
	for _, w := range CheckRevisions(ops) {
		rd.r.finding(CheckRevision, "round %d: %s", rd.number, w)
	}
}

// checkWatches compares the watches with the operations and with each other.
func (rd *round) checkWatches(life context.Context, ops []porcupine.Operation, last int64) {
	ctx, done := context.WithTimeout(life, rd.r.cfg.Patience)
	defer done()
	for _, o := range rd.observers {
		for !o.Knows(last) && pause(ctx, 5*time.Millisecond) {
		}
		if !o.Knows(last) {
			saw, _ := o.Saw()
			rd.r.finding(CheckWatch, "round %d: watch %q did not report revision %d within %s; it reported %d events", rd.number, o.Name, last, rd.r.cfg.Patience, len(saw))
		}
	}
	ctx, done = context.WithTimeout(life, 2*rd.r.cfg.Patience)
	defer done()
	all, err := ReadEvents(ctx, rd.stock[0], rd.prefix, rd.from, last, rd.r.cfg.ValueBytes)
	if err != nil {
		rd.r.finding(CheckWatch, "round %d: %v", rd.number, err)
		return
	}
	wrong := CheckEvents(ops, all, rd.leases.leased)
	for _, o := range rd.observers {
		wrong = append(wrong, sameUntil(o, all, last)...)
	}
	for _, w := range wrong {
		rd.r.finding(CheckWatch, "round %d: %s", rd.number, w)
	}
	rd.r.report.Watches.Events += len(all)
	rd.r.report.Watches.Observers += len(rd.observers)
}

// sameUntil compares only events up to a revision. Later ones, for example the end of a lease,
// are ignored.
func sameUntil(o *Observer, all []Event, last int64) []string {
	saw, err := o.Saw()
	return SameEvents(&Observer{Name: o.Name, Want: o.Want, saw: eventsUntil(saw, last), err: err}, all)
}

// clean removes the keys of this round, as far as possible. It also compacts the history of an
// own cluster.
func (rd *round) clean(life context.Context) {
	ctx, done := context.WithTimeout(life, rd.r.cfg.Patience)
	defer done()
	for ctx.Err() == nil {
		resp, err := rd.stock[0].Delete(ctx, rd.prefix, clientv3.WithPrefix())
		if err == nil && rd.r.c.own {
			// etcd's HashKV is the same before and after a compaction's removals only if a key
			// remains.
			_, err = rd.stock[0].Put(ctx, rd.r.prefix+"round", "")
		}
		if err == nil && rd.r.c.own {
			_, err = rd.stock[0].Compact(ctx, resp.Header.Revision)
		}
		if err == nil {
			return
		}
	}
}

// sum adds the round to the report.
func (rd *round) sum() {
	if rd.h == nil {
		return
	}
	acks := rd.h.acked()
	if rd.until == 0 {
		rd.until = rd.h.Now() // the round did not end as planned
	}
	outages(rd.faults, acks, rd.until)
	offset := int64(rd.h.began.Sub(rd.r.began))
	rd.r.report.addFaults(rd.faults)
	rd.r.report.addTimeline(timeline(acks, offset))
	rd.r.report.addOperations(rd.h)
	worst := 0.0
	for _, f := range rd.faults {
		worst = max(worst, f.OutageMS)
	}
	rd.r.say("round %d: %d faults, %d operations, worst outage %.0f ms, %d findings so far",
		rd.number, len(rd.faults), rd.h.Known(), worst, len(rd.r.report.Findings))
}

// breakThings injects faults until the given time.
func (rd *round) breakThings(ctx context.Context, until time.Time) error {
	r := rd.r
	for ctx.Err() == nil && time.Now().Before(until) && rd.h.Known() < maxOperations && !r.enough() {
		t, err := r.c.await(ctx, "a leader", func(t *tree.Tree) bool { return t.LeaderMember().PID != 0 })
		if err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		if t.InSync() >= r.c.followers {
			r.sample(t)
		}
		rd.inject(ctx, t)
		if err := rd.progress(ctx, answersBetween); err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		if r.rng.IntN(3) > 0 {
			if _, err := r.c.full(ctx); err != nil {
				return r.unlessInterrupted(ctx, err)
			}
		}
		pause(ctx, time.Duration(r.rng.Int64N(int64(r.cfg.Between))))
	}
	return nil
}

// maxOperations ends a round early, because porcupine's memory grows with the square of the
// operations on a key.
const maxOperations = 150_000

// answersBetween is the number of operations that must be answered before the next fault.
const answersBetween = 20

func (rd *round) inject(ctx context.Context, t *tree.Tree) {
	kind := rd.r.weights.pick(rd.r.rng)
	all := faults()
	f := all[slices.IndexFunc(all, func(f fault) bool { return f.kind == kind })]
	i := Injected{AtMS: time.Since(rd.r.began).Milliseconds(), Kind: kind, Label: kind, at: rd.h.Now()}
	label, what, err := rd.r.do(ctx, f, t)
	if errors.Is(err, errNoVictim) || ctx.Err() != nil {
		return
	}
	rd.r.faults++
	if label != "" {
		i.Label = label
	}
	i.What = what
	rd.faults = append(rd.faults, i)
	rd.r.say("%7.1fs  %s: %s", float64(i.AtMS)/1000, i.Label, i.What)
	if err != nil {
		rd.r.finding(CheckFault, "%s: %v", i.Label, err)
	}
}

// do injects a fault. If there are services, it records what was done, and when there may have
// been no leader.
func (r *runner) do(ctx context.Context, f fault, t *tree.Tree) (label, what string, err error) {
	if r.programs == nil {
		return f.do(ctx, r, t)
	}
	noted := r.programs.note("begin %s", f.kind)
	if hitsServices(f.kind) {
		label, what, err = f.do(ctx, r, t)
	} else {
		err = r.blindly(ctx, f.kind == StopContinue, func() (err error) {
			label, what, err = f.do(ctx, r, t)
			return err
		})
	}
	return label, what, errors.Join(err, noted, r.programs.note("end %s: %s", cmp.Or(label, f.kind), what))
}

// progress waits for n more answers.
func (rd *round) progress(ctx context.Context, n int) error {
	before := rd.h.Known()
	deadline := time.Now().Add(rd.r.cfg.Patience)
	for rd.h.Known() < before+n {
		if err := rd.r.c.restartIfDead(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for answers to %d more operations: %w %s", n, errTimeout, rd.r.cfg.Patience)
		}
		if !pause(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
