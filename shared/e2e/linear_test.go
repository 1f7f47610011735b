package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/tree"
)

// TestLinearizable has clients put, read, delete and exchange values on few
// keys while processes are killed and stopped, and lets porcupine look for an
// order of all that which one process could have produced.
func TestLinearizable(t *testing.T) {
	seed, rng := seeded(t)
	c := start(t, withTimeout("800ms"))
	h := &history{began: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 5 {
		w := &linearClient{h: h, id: i, cl: c.dial(), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		wg.Go(func() { w.run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	for round := range rounds(15) {
		h.more(c, 60)
		fault := c.breakSomething(rng)
		t.Logf("round %d: %s", round, fault)
		if rng.IntN(3) > 0 {
			c.revive()
		}
	}
	c.revive()
	h.more(c, 60)
	cancel()
	wg.Wait()
	h.check(t)
}

// TestTheCheckerSeesAStaleRead: an answer that no single process could have
// given is found, and one that is only odd is not.
func TestTheCheckerSeesAStaleRead(t *testing.T) {
	op := func(call, ret int64, r request, a answer) porcupine.Operation {
		r.key = "k"
		return porcupine.Operation{Input: r, Call: call, Output: a, Return: ret}
	}
	unknown := op(0, 50, request{kind: write, to: "lost?"}, answer{unknown: true})
	first := op(10, 20, request{kind: write, to: "1"}, answer{})
	second := op(30, 40, request{kind: exchange, from: "1", to: "2"}, answer{was: "1"})
	for name, c := range map[string]struct {
		last porcupine.Operation
		want porcupine.CheckResult
	}{
		"fresh":               {op(50, 60, request{kind: get}, answer{was: "2"}), porcupine.Ok},
		"stale":               {op(50, 60, request{kind: get}, answer{was: "1"}), porcupine.Illegal},
		"at the same time":    {op(35, 60, request{kind: get}, answer{was: "1"}), porcupine.Ok},
		"gone":                {op(50, 60, request{kind: get}, answer{}), porcupine.Illegal},
		"late effect":         {op(50, 60, request{kind: get}, answer{was: "lost?"}), porcupine.Ok},
		"a deletion's answer": {op(50, 60, request{kind: remove}, answer{was: "1"}), porcupine.Illegal},
	} {
		h := &history{began: time.Now(), ops: []porcupine.Operation{unknown, first, second, c.last}}
		if got := porcupine.CheckOperationsTimeout(oneKey, h.settle(), patience); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// breakSomething kills or stops processes at random. What it stops for good
// the cluster has to end by itself.
func (c *cluster) breakSomething(rng *rand.Rand) string {
	var tr *tree.Tree
	eventually(c.t, "somebody leads", func() bool {
		c.raise()
		tr = c.tree()
		return tr != nil
	})
	victim := leaderOf(tr)
	if fs := followersOf(tr); rng.IntN(5) < 2 && len(fs) > 0 {
		victim = fs[rng.IntN(len(fs))]
	}
	what := fmt.Sprintf("%s %s (pid %d)", victim.Role, victim.Address, victim.PID)
	switch rng.IntN(8) {
	case 0, 1, 2, 3:
		c.signal(victim, syscall.SIGKILL)
		return "SIGKILL to " + what
	case 4:
		c.signal(victim, syscall.SIGSTOP)
		return "SIGSTOP to " + what
	case 5: // a pause, shorter or longer than the heartbeat timeout
		c.signal(victim, syscall.SIGSTOP)
		pause := time.Duration(rng.IntN(800)) * time.Millisecond
		id := identity(victim)
		time.AfterFunc(pause, func() { signalSame(id, syscall.SIGCONT) })
		return fmt.Sprintf("SIGSTOP for %s to %s", pause, what)
	case 6:
		c.signal(leaderOf(tr), syscall.SIGKILL)
		c.signal(victim, syscall.SIGKILL)
		return "SIGKILL to the leader and to " + what
	default:
		for _, m := range tr.Members {
			c.signal(m, syscall.SIGKILL)
		}
		return "SIGKILL to all"
	}
}

// raise starts the cluster again where nobody is left to do it.
func (c *cluster) raise() {
	c.t.Helper()
	if !same(c.last) && len(c.processes()) == 0 {
		c.up()
	}
}

// revive waits for the full strength.
func (c *cluster) revive() {
	c.t.Helper()
	eventually(c.t, "full strength", func() bool {
		c.raise()
		tr := c.tree()
		return tr != nil && count(tr, "in_sync") == 2 && !tr.Degraded
	})
}

// kind of an operation on one key.
type kind string

const (
	get      kind = "get"
	write    kind = "put"
	remove   kind = "delete"
	exchange kind = "exchange" // from, to
)

// request and answer are porcupine's input and output. A value is never
// written twice; the empty one means that the key is not there.
type request struct {
	kind     kind
	key      string
	from, to string
}

// answer: was is the value that the operation found. Every operation tells it,
// so a write that nobody saw could as well not have happened.
type answer struct {
	unknown  bool
	was      string
	revision int64
}

// history is what the clients saw.
type history struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	known int
}

func (h *history) add(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	if !op.Output.(answer).unknown {
		h.known++
	}
}

func (h *history) more(c *cluster, n int) {
	c.t.Helper()
	count := func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.known }
	before := count()
	eventually(c.t, fmt.Sprintf("%d more answers", n), func() bool { c.raise(); return count() >= before+n })
}

type linearClient struct {
	h    *history
	id   int
	cl   *clientv3.Client
	rng  *rand.Rand
	next int
	// seen is the last value that this client saw of each key.
	seen [3]string
}

func (w *linearClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		k := w.rng.IntN(len(w.seen))
		r := request{kind: get, key: fmt.Sprintf("linear/%d", k)}
		w.next++
		switch fresh := fmt.Sprintf("%d.%d", w.id, w.next); w.rng.IntN(10) {
		case 0, 1, 2:
			r.kind, r.to = write, fresh
		case 3, 4, 5:
			r.kind, r.from, r.to = exchange, w.seen[k], fresh
		case 6:
			r.kind = remove
		}
		call := time.Since(w.h.began)
		// Beyond the leader's own timeout for writes, shorter than patience.
		try, done := context.WithTimeout(ctx, 10*time.Second)
		a, err := w.do(try, r)
		done()
		if err != nil && r.kind == get {
			continue // told us nothing, did nothing
		}
		a.unknown = err != nil
		if err == nil {
			w.seen[k] = a.was
			if r.to != "" && (r.kind == write || a.was == r.from) {
				w.seen[k] = r.to
			}
		}
		w.h.add(porcupine.Operation{ClientId: w.id, Input: r, Call: int64(call), Output: a, Return: int64(time.Since(w.h.began))})
	}
}

func (w *linearClient) do(ctx context.Context, r request) (answer, error) {
	switch r.kind {
	case write:
		resp, err := w.cl.Put(ctx, r.key, r.to, clientv3.WithPrevKV())
		if err != nil {
			return answer{}, err
		}
		a := answer{revision: resp.Header.Revision}
		if resp.PrevKv != nil {
			a.was = string(resp.PrevKv.Value)
		}
		return a, nil
	case remove:
		resp, err := w.cl.Delete(ctx, r.key, clientv3.WithPrevKV())
		if err != nil {
			return answer{}, err
		}
		if resp.Deleted == 0 {
			return answer{}, nil
		}
		return answer{was: string(resp.PrevKvs[0].Value), revision: resp.Header.Revision}, nil
	case exchange:
		is := clientv3.Compare(clientv3.Value(r.key), "=", r.from)
		if r.from == "" {
			is = clientv3.Compare(clientv3.CreateRevision(r.key), "=", 0)
		}
		resp, err := w.cl.Txn(ctx).If(is).Then(clientv3.OpPut(r.key, r.to)).Else(clientv3.OpGet(r.key)).Commit()
		if err != nil {
			return answer{}, err
		}
		if resp.Succeeded {
			return answer{was: r.from, revision: resp.Header.Revision}, nil
		}
		return valueOf((*clientv3.GetResponse)(resp.Responses[0].GetResponseRange())), nil
	default:
		resp, err := w.cl.Get(ctx, r.key)
		if err != nil {
			return answer{}, err
		}
		return valueOf(resp), nil
	}
}

func valueOf(resp *clientv3.GetResponse) answer {
	if len(resp.Kvs) == 0 {
		return answer{}
	}
	return answer{was: string(resp.Kvs[0].Value)}
}

// oneKey is what a single process would do with one key.
var oneKey = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range ops {
			k := op.Input.(request).key
			by[k] = append(by[k], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		r, a, value := input.(request), output.(answer), state.(string)
		ok := a.unknown || a.was == value
		switch {
		case r.kind == write, r.kind == exchange && value == r.from:
			value = r.to
		case r.kind == remove:
			value = ""
		}
		return ok, value
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}

// settle bounds the operations of which nobody knows the outcome. One that
// somebody saw the effect of happened before it was seen. One that nobody saw
// can be left out: whatever came after it would have told its value. Unknown deletes
// leave no value and may happen at any time after their call.
func (h *history) settle() []porcupine.Operation {
	seen := map[string]int64{}
	last := int64(time.Since(h.began))
	for _, op := range h.ops {
		if a := op.Output.(answer); !a.unknown {
			if at, ok := seen[a.was]; !ok || op.Return < at {
				seen[a.was] = op.Return
			}
		}
	}
	var out []porcupine.Operation
	for _, op := range h.ops {
		if op.Output.(answer).unknown {
			op.Return = last
			if to := op.Input.(request).to; to != "" {
				at, ok := seen[to]
				if !ok {
					continue
				}
				op.Return = at
			}
		}
		out = append(out, op)
	}
	return out
}

func (h *history) check(t *testing.T) {
	t.Helper()
	ops := h.settle()
	t.Logf("%d operations, %d with an answer, %d of the others left their traces", len(h.ops), h.known, len(ops)-h.known)
	switch result, info := porcupine.CheckOperationsVerbose(oneKey, ops, patience); result {
	case porcupine.Ok:
	case porcupine.Unknown:
		t.Log("porcupine did not finish: nothing is proved")
	default:
		var b strings.Builder
		for _, op := range ops {
			fmt.Fprintf(&b, "%12d %12d client %d %s\n", op.Call, op.Return, op.ClientId, oneKey.DescribeOperation(op.Input, op.Output))
		}
		t.Errorf("the history is not linearizable; longest orders: %v\n%s", info.PartialLinearizations(), tail(b.String(), 20000))
	}
	h.checkRevisions(t)
}

// checkRevisions: over all keys, a write that began after another was
// answered has the higher revision, and no two writes have the same.
func (h *history) checkRevisions(t *testing.T) {
	t.Helper()
	by := map[int64]porcupine.Operation{}
	var writes []porcupine.Operation
	for _, op := range h.ops {
		rev := op.Output.(answer).revision
		if rev == 0 {
			continue
		}
		if other, ok := by[rev]; ok {
			t.Errorf("two writes at revision %d: %+v and %+v", rev, other.Input, op.Input)
		}
		by[rev] = op
		writes = append(writes, op)
	}
	sortBy(writes, func(op porcupine.Operation) int64 { return op.Output.(answer).revision })
	var newest porcupine.Operation // the latest call so far, in the order of revisions
	for _, op := range writes {
		if op.Return < newest.Call {
			t.Errorf("%+v at revision %d was answered before %+v at revision %d began", op.Input, op.Output.(answer).revision, newest.Input, newest.Output.(answer).revision)
		}
		if op.Call > newest.Call {
			newest = op
		}
	}
}
