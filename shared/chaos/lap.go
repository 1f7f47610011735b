package chaos

import (
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

	"github.com/dynast-io/dynast/shared/tree"
)

// lap is a part of a run with keys, clients and a history of its own, which is
// checked at its end: so no history grows without a bound.
type lap struct {
	r      *runner
	number int
	prefix string
	keys   []string
	from   int64 // the first revision of this lap
	h      *History
	until  int64 // when the clients were told to stop
	stock  []*clientv3.Client
	faults []Injected

	writing, watching, keeping sync.WaitGroup
	observers                  []*Observer
	leases                     *leaseholders
}

// stops end what start began.
type stops struct{ writing, keeping, watching context.CancelFunc }

// runLap breaks the cluster until a time, then checks. An error ends the run:
// the cluster can't be used any more, or ctx ended before it could.
func (r *runner) runLap(ctx context.Context, number int, until time.Time) (err error) {
	if _, err := r.c.full(ctx); err != nil {
		return err
	}
	l := &lap{r: r, number: number, prefix: fmt.Sprintf("%s%d/", r.prefix, number)}
	for k := range r.cfg.Keys {
		l.keys = append(l.keys, fmt.Sprintf("%sk/%d", l.prefix, k))
	}
	defer func() {
		for _, cl := range l.stock {
			err = errors.Join(err, cl.Close())
		}
	}()
	// What follows an interruption still has to be done.
	life := context.WithoutCancel(ctx)
	stop, err := l.start(life)
	if err != nil {
		return err
	}
	defer stop.watching()
	defer stop.keeping()
	defer stop.writing()
	broken := l.breakThings(ctx, until)
	err = l.finish(life, stop)
	stop.watching()
	stop.keeping()
	l.watching.Wait()
	l.keeping.Wait()
	l.sum()
	return errors.Join(broken, err)
}

func (l *lap) dial() (*clientv3.Client, error) {
	cl, err := l.r.c.dial()
	if err == nil {
		l.stock = append(l.stock, cl)
	}
	return cl, err
}

// start starts clients, watches and leases.
func (l *lap) start(life context.Context) (stops, error) {
	first, err := l.dial()
	if err != nil {
		return stops{}, err
	}
	try, done := context.WithTimeout(life, l.r.cfg.Patience)
	defer done()
	now, err := first.Get(try, l.prefix)
	if err != nil {
		return stops{}, fmt.Errorf("read the revision: %w", err)
	}
	l.from, l.h = now.Header.Revision+1, NewHistory()
	l.r.h = l.h
	var s stops
	var writing, keeping, watching context.Context
	writing, s.writing = context.WithCancel(life)
	keeping, s.keeping = context.WithCancel(life)
	watching, s.watching = context.WithCancel(life)
	for i := range l.r.cfg.Clients {
		stock, err := l.dial()
		if err != nil {
			return s, err
		}
		c := l.client(i, stock)
		if l.r.cfg.Rate > 0 {
			c.Pause = time.Duration(float64(time.Second) * float64(l.r.cfg.Clients) / l.r.cfg.Rate)
		}
		l.writing.Go(func() { c.Run(writing) })
	}
	l.leases = &leaseholders{
		h: l.h, stock: first, prefix: l.prefix + "lease/", gone: map[string]int64{}, heartbeat: l.r.c.heartbeat,
		takeovers: func(from, to int64) int {
			return l.r.c.takeovers(l.h.began.Add(time.Duration(from)), l.h.began.Add(time.Duration(to)))
		},
		outage: func(from, to int64) time.Duration { return silence(l.h.acked(), from, to) },
	}
	if err := l.observe(watching); err != nil {
		return s, err
	}
	l.keeping.Go(func() { l.leases.keep(keeping, "kept") })
	l.writing.Go(func() { l.leases.letGo(writing, keeping, "let-go") })
	return s, nil
}

func (l *lap) client(id int, stock *clientv3.Client) *Client {
	return &Client{
		History: l.h, ID: id, Stock: stock, Keys: l.keys, ValueBytes: l.r.cfg.ValueBytes,
		Rand: rand.New(rand.NewPCG(l.r.cfg.Seed, uint64(l.number)<<32+uint64(id))),
	}
}

// observe starts watches of several kinds, some of them on one stream.
func (l *lap) observe(ctx context.Context) error {
	shared, err := l.dial()
	if err != nil {
		return err
	}
	alone, err := l.dial()
	if err != nil {
		return err
	}
	from := clientv3.WithRev(l.from)
	watch := func(o *Observer, cl *clientv3.Client, key string, opts ...clientv3.OpOption) {
		o.ValueBytes = l.r.cfg.ValueBytes
		ch := cl.Watch(ctx, key, append(opts, from, clientv3.WithPrevKV())...)
		l.observers = append(l.observers, o)
		l.watching.Go(func() { o.Watch(ctx, ch) })
	}
	watch(&Observer{Name: "prefix", OnEvent: l.leases.told}, shared, l.prefix, clientv3.WithPrefix())
	watch(&Observer{Name: "fragments"}, shared, l.prefix, clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithProgressNotify())
	watch(&Observer{Name: "one key", Want: func(e Event) bool { return e.Key == l.keys[0] }}, shared, l.keys[0])
	watch(&Observer{Name: "deletes", Want: func(e Event) bool { return e.Delete }}, alone, l.prefix, clientv3.WithPrefix(), clientv3.WithFilterPut())
	return nil
}

// finish brings everybody to rest and checks what they saw.
func (l *lap) finish(life context.Context, stop stops) error {
	full, err := l.r.c.full(life)
	if err != nil {
		l.r.finding(CheckProgress, "in the end: %v", err)
		return err
	}
	l.r.sample(full)
	l.until = l.h.Now()
	stop.writing()
	l.writing.Wait()
	last, err := l.mark(life)
	if err != nil {
		l.r.finding(CheckProgress, "in the end: %v", err)
		return err
	}
	ops := l.h.Operations()
	l.checkOperations(ops)
	leases, leaseOps := l.leases.result()
	l.checkWatches(life, slices.Concat(ops, leaseOps), last)
	for _, w := range CheckLeases(leases, l.r.c.heartbeat) {
		l.r.finding(CheckLease, "%s", w)
	}
	l.r.report.addLeases(leases)
	l.clean(life)
	return nil
}

// mark reads every key, and makes two changes that each watch sees: a put and a
// delete. It returns the revision of the last.
func (l *lap) mark(life context.Context) (int64, error) {
	ctx, done := context.WithTimeout(life, l.r.cfg.Patience)
	defer done()
	c := l.client(l.r.cfg.Clients, l.stock[0])
	var err error
	for _, k := range l.keys {
		for {
			if _, err = c.Do(ctx, Request{Kind: Get, Key: k}); err == nil || ctx.Err() != nil {
				break
			}
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		if _, err = c.Do(ctx, Request{Kind: Put, Key: l.keys[0], To: fmt.Sprintf("end.%d", i)}); err != nil {
			continue
		}
		var a Answer
		if a, err = c.Do(ctx, Request{Kind: Delete, Key: l.keys[0]}); err == nil && a.Revision > 0 {
			return a.Revision, nil
		}
	}
	return 0, fmt.Errorf("the last changes: %w %s: %w", errImpatient, l.r.cfg.Patience, err)
}

// undecidedAfter bounds porcupine's search.
const undecidedAfter = 2 * time.Minute

func (l *lap) checkOperations(ops []porcupine.Operation) {
	linear := CheckLinear(ops, undecidedAfter)
	switch linear.Result {
	case porcupine.Ok:
	case porcupine.Unknown:
		l.r.finding(CheckLinearizable, "lap %d: porcupine found no answer within %s: nothing is proved", l.number, undecidedAfter)
	default:
		picture := filepath.Join(l.r.work, fmt.Sprintf("counterexample-%d.html", l.number))
		where := "its picture is in " + picture
		if err := linear.Visualize(picture); err != nil {
			where = err.Error()
		}
		l.r.finding(CheckLinearizable, "lap %d: the history is not linearizable (%s)\n%s", l.number, where, linear.Explain())
	}
	for _, w := range CheckRevisions(ops) {
		l.r.finding(CheckRevision, "lap %d: %s", l.number, w)
	}
}

// checkWatches compares the watches with the operations and with each other.
func (l *lap) checkWatches(life context.Context, ops []porcupine.Operation, last int64) {
	ctx, done := context.WithTimeout(life, l.r.cfg.Patience)
	defer done()
	for _, o := range l.observers {
		for !o.Knows(last) && pause(ctx, 5*time.Millisecond) {
		}
		if !o.Knows(last) {
			saw, _ := o.Saw()
			l.r.finding(CheckWatch, "lap %d: watch %q was not told of revision %d within %s, %d events were", l.number, o.Name, last, l.r.cfg.Patience, len(saw))
		}
	}
	ctx, done = context.WithTimeout(life, 2*l.r.cfg.Patience)
	defer done()
	all, err := ReadEvents(ctx, l.stock[0], l.prefix, l.from, last, l.r.cfg.ValueBytes)
	if err != nil {
		l.r.finding(CheckWatch, "lap %d: %v", l.number, err)
		return
	}
	wrong := CheckEvents(ops, all, l.leases.leased)
	for _, o := range l.observers {
		wrong = append(wrong, sameUntil(o, all, last)...)
	}
	for _, w := range wrong {
		l.r.finding(CheckWatch, "lap %d: %s", l.number, w)
	}
	l.r.report.Watches.Events += len(all)
	l.r.report.Watches.Observers += len(l.observers)
}

// sameUntil leaves out what came after the last revision that is compared: the
// end of a lease, say.
func sameUntil(o *Observer, all []Event, last int64) []string {
	saw, err := o.Saw()
	until := slices.IndexFunc(saw, func(e Event) bool { return e.Revision > last })
	if until < 0 {
		until = len(saw)
	}
	return SameEvents(&Observer{Name: o.Name, Want: o.Want, saw: saw[:until], err: err}, all)
}

// clean removes what this lap wrote, as far as that can be done now; an own
// cluster's history too.
func (l *lap) clean(life context.Context) {
	ctx, done := context.WithTimeout(life, l.r.cfg.Patience)
	defer done()
	for ctx.Err() == nil {
		resp, err := l.stock[0].Delete(ctx, l.prefix, clientv3.WithPrefix())
		if err == nil && l.r.c.own {
			// etcd's HashKV is the same before and after a compaction has removed what
			// it removes only where a key is left.
			_, err = l.stock[0].Put(ctx, l.r.prefix+"lap", "")
		}
		if err == nil && l.r.c.own {
			_, err = l.stock[0].Compact(ctx, resp.Header.Revision)
		}
		if err == nil {
			return
		}
	}
}

// sum adds the lap to the report.
func (l *lap) sum() {
	if l.h == nil {
		return
	}
	acks := l.h.acked()
	if l.until == 0 {
		l.until = l.h.Now() // there was no end as meant
	}
	outages(l.faults, acks, l.until)
	offset := int64(l.h.began.Sub(l.r.began))
	l.r.report.addFaults(l.faults)
	l.r.report.addTimeline(timeline(acks, offset))
	l.r.report.addOperations(l.h)
	worst := 0.0
	for _, f := range l.faults {
		worst = max(worst, f.OutageMS)
	}
	l.r.say("lap %d: %d faults, %d operations, worst outage %.0f ms, %d findings so far",
		l.number, len(l.faults), l.h.Known(), worst, len(l.r.report.Findings))
}

// breakThings injects faults until a time.
func (l *lap) breakThings(ctx context.Context, until time.Time) error {
	r := l.r
	for ctx.Err() == nil && time.Now().Before(until) && l.h.Known() < maxOperations {
		t, err := r.c.await(ctx, "somebody leads", func(t *tree.Tree) bool { return leaderOf(t).PID != 0 })
		if err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		if inSync(t) >= r.c.followers {
			r.sample(t)
		}
		l.inject(ctx, t)
		if err := l.progress(ctx, answersBetween); err != nil {
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

// maxOperations ends a lap early: porcupine needs memory with the square of the
// operations on a key.
const maxOperations = 150_000

// answersBetween is how many operations are answered before the next fault.
const answersBetween = 20

func (l *lap) inject(ctx context.Context, t *tree.Tree) {
	kind := l.r.weights.pick(l.r.rng)
	all := faults()
	f := all[slices.IndexFunc(all, func(f fault) bool { return f.kind == kind })]
	i := Injected{AtMS: time.Since(l.r.began).Milliseconds(), Kind: kind, Label: kind, at: l.h.Now()}
	label, what, err := f.do(ctx, l.r, t)
	if errors.Is(err, errNobody) || ctx.Err() != nil {
		return
	}
	if label != "" {
		i.Label = label
	}
	i.What = what
	l.faults = append(l.faults, i)
	l.r.say("%7.1fs  %s: %s", float64(i.AtMS)/1000, i.Label, i.What)
	if err != nil {
		l.r.finding(CheckFault, "%s: %v", i.Label, err)
	}
}

// progress waits for more answers.
func (l *lap) progress(ctx context.Context, n int) error {
	before := l.h.Known()
	deadline := time.Now().Add(l.r.cfg.Patience)
	for l.h.Known() < before+n {
		if err := l.r.c.raise(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d more operations are answered: %w %s", n, errImpatient, l.r.cfg.Patience)
		}
		if !pause(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
