package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/protobuf/proto"
)

// txnMembers are the members that apply the same transactions: a leader and a follower as they
// are, and the same on etcd's way only.
type txnMembers struct {
	leader, follower, etcds, etcdsFollower *Store
	events, etcdsEvents                    *WatchStream
}

func newTxnMembers(t *testing.T) *txnMembers {
	m := &txnMembers{leader: open(t, t.TempDir()), follower: open(t, t.TempDir()), etcds: open(t, t.TempDir()), etcdsFollower: open(t, t.TempDir())}
	m.leader.Promote(0)
	m.etcds.Promote(0)
	m.events, m.etcdsEvents = m.leader.NewWatchStream(), m.etcds.NewWatchStream()
	watch(t, m.events, 1, "\x00", []byte{})
	watch(t, m.etcdsEvents, 1, "\x00", []byte{})
	return m
}

func (m *txnMembers) close() {
	m.events.Close()
	m.etcdsEvents.Close()
}

func (m *txnMembers) stores() []*Store {
	return []*Store{m.leader, m.follower, m.etcds, m.etcdsFollower}
}

// FuzzPlainTxn: random transactions have the same responses, events and content whether they
// take the short way or etcd's.
func FuzzPlainTxn(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(time.Now().UnixNano()))
	f.Fuzz(func(t *testing.T, seed uint64) {
		t.Logf("seed %d", seed)
		m := newTxnMembers(t)
		defer m.close()
		g := &txnGenerator{rand.New(rand.NewPCG(seed, 0))}
		plain := 0
		const entries = 400
		for i := range entries {
			if m.step(t, g.request(i)) {
				plain++
			}
			if i%50 == 49 {
				m.compare(t)
			}
		}
		if plain < entries/4 {
			t.Errorf("%d of %d entries went the short way: too few", plain, entries)
		}
	})
}

// step applies a request everywhere, and reports whether the short way was taken.
func (m *txnMembers) step(t *testing.T, r *pb.InternalRaftRequest) (plain bool) {
	t.Helper()
	plain = m.leader.plainTxn(r)
	if plain && !m.follower.plainTxn(r) {
		t.Fatalf("plain in the leader only: %v", r)
	}
	slow := proto.Clone(r).(*pb.InternalRaftRequest)
	asksForPrevious(slow.Txn)
	if m.etcds.plainTxn(slow) || m.etcdsFollower.plainTxn(slow) {
		t.Fatalf("not etcd's way: %v", slow)
	}
	got, want := m.apply(t, m.leader, r), m.apply(t, m.etcds, slow)
	m.apply(t, m.follower, r)
	m.apply(t, m.etcdsFollower, slow)
	if p, ok := want.Resp.(*pb.TxnResponse); ok && want.Err == nil {
		dropPrevious(r.Txn, p)
	}
	if text(got) != text(want) {
		t.Fatalf("entry %v:\ngot  %s\nwant %s", r, text(got), text(want))
	}
	if a, b := received(m.events), received(m.etcdsEvents); !slices.Equal(a, b) {
		t.Fatalf("entry %v:\nevents %q\nwant   %q", r, a, b)
	}
	return plain
}

// apply also waits until a compaction has removed what it removes, because the files are compared.
func (m *txnMembers) apply(t *testing.T, s *Store, r *pb.InternalRaftRequest) *apply.Result {
	t.Helper()
	res := applyNext(t, s, r)
	if res != nil && res.Physc != nil {
		<-res.Physc
	}
	return res
}

// compare compares all members as a whole, and lets them commit.
func (m *txnMembers) compare(t *testing.T) {
	t.Helper()
	for _, s := range m.stores()[1:] {
		if s.Revision() != m.leader.Revision() {
			t.Fatalf("revisions %d and %d", m.leader.Revision(), s.Revision())
		}
		a, err := m.leader.Hash()
		b, err2 := s.Hash()
		if err != nil || err2 != nil || a != b {
			t.Fatalf("the files differ: %x and %x; %v, %v", a, b, err, err2)
		}
		if s.Durable() != s.Applied() {
			t.Fatalf("committed up to %s, applied up to %s", s.Durable(), s.Applied())
		}
		for _, l := range m.leader.Lessor().Leases() {
			if a, b := keysOf(m.leader, l.ID), keysOf(s, l.ID); !slices.Equal(a, b) {
				t.Fatalf("lease %d has %v and %v", l.ID, a, b)
			}
		}
	}
}

// asksForPrevious makes the first write of each branch ask for previous values, which sends the
// transaction etcd's way. dropPrevious removes them from the response.
func asksForPrevious(t *pb.TxnRequest) {
	for _, branch := range branches(t) {
		for _, op := range branch {
			if p := op.GetRequestPut(); p != nil {
				p.PrevKv = true
			}
			if d := op.GetRequestDeleteRange(); d != nil {
				d.PrevKv = true
			}
			asksForPrevious(op.GetRequestTxn())
		}
	}
}

func dropPrevious(t *pb.TxnRequest, resp *pb.TxnResponse) {
	branch := t.GetFailure()
	if resp.Succeeded {
		branch = t.GetSuccess()
	}
	for i, op := range branch {
		if p := op.GetRequestPut(); p != nil && !p.PrevKv {
			resp.Responses[i].GetResponsePut().PrevKv = nil
		}
		if d := op.GetRequestDeleteRange(); d != nil && !d.PrevKv {
			resp.Responses[i].GetResponseDeleteRange().PrevKvs = nil
		}
		if inner := op.GetRequestTxn(); inner != nil {
			dropPrevious(inner, resp.Responses[i].GetResponseTxn())
		}
	}
}

func branches(t *pb.TxnRequest) [][]*pb.RequestOp {
	return [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()}
}

// txnGenerator makes entries: mostly transactions on few keys.
type txnGenerator struct{ *rand.Rand }

const txnLeases = 3

func (g *txnGenerator) request(i int) *pb.InternalRaftRequest {
	switch n := g.IntN(40); {
	case i < txnLeases:
		return grantOf(int64(i+1), 1000)
	case n == 0:
		return revokeOf(int64(g.IntN(txnLeases) + 1))
	case n == 1:
		return grantOf(int64(g.IntN(txnLeases)+1), 1000)
	case n == 2:
		return &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: g.key()}}
	case n == 3 && i > 100:
		return &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(i / 4)}}
	case n == 4:
		return &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: g.key(), Value: g.value()}}
	}
	t := g.txn(0)
	if !slices.ContainsFunc(slices.Concat(t.Success, t.Failure), isWrite) {
		// A transaction that only reads does not go through the log.
		t.Success = append(t.Success, g.put(false))
	}
	return &pb.InternalRaftRequest{Txn: t}
}

func isWrite(op *pb.RequestOp) bool { return op.GetRequestRange() == nil }

func (g *txnGenerator) key() []byte   { return fmt.Appendf(nil, "k%d", g.IntN(8)) }
func (g *txnGenerator) value() []byte { return fmt.Appendf(nil, "v%d", g.IntN(4)) }

// end is the end of a range: none, everything from the key on, or another key.
func (g *txnGenerator) end() []byte {
	switch g.IntN(5) {
	case 0:
		return []byte{0}
	case 1:
		return g.key()
	}
	return nil
}

func (g *txnGenerator) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.IntN(3) {
		t.Compare = append(t.Compare, g.comparison())
	}
	odd := g.IntN(6) == 0 // with something that only etcd's way knows
	for range g.IntN(4) {
		t.Success = append(t.Success, g.op(odd, depth))
	}
	for range g.IntN(3) {
		t.Failure = append(t.Failure, g.op(odd, depth))
	}
	return t
}

func (g *txnGenerator) comparison() *pb.Compare {
	c := &pb.Compare{Key: g.key(), RangeEnd: g.end(), Result: pb.Compare_CompareResult(g.IntN(5)), Target: pb.Compare_CompareTarget(g.IntN(6))}
	switch n := int64(g.IntN(5)); g.IntN(7) {
	case 0:
		c.TargetUnion = &pb.Compare_Version{Version: n}
	case 1:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n * 50}
	case 2:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n * 100}
	case 3:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case 4:
		c.TargetUnion = &pb.Compare_Lease{Lease: n}
	case 5:
		c.TargetUnion = &pb.Compare_Value{}
	}
	return c
}

func (g *txnGenerator) op(odd bool, depth int) *pb.RequestOp {
	switch n := g.IntN(10); {
	case n < 4:
		return g.put(odd)
	case n < 7:
		d := &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end()}
		d.PrevKv = odd && g.IntN(2) == 0
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}}
	case n == 7 && odd && depth < 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	}
	r := &pb.RangeRequest{Key: g.key(), RangeEnd: g.end(), Serializable: g.IntN(2) == 0}
	if odd {
		r.Limit, r.KeysOnly, r.CountOnly = int64(g.IntN(3)), g.IntN(3) == 0, g.IntN(3) == 0
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.IntN(3)), pb.RangeRequest_SortTarget(g.IntN(5))
		r.Revision, r.MinModRevision = int64(g.IntN(2)*g.IntN(300)), int64(g.IntN(2)*g.IntN(300))
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// put also names leases that do not exist. It keeps nothing of the previous put, because the API
// refuses that after a deletion in the same transaction, and etcd's applier panics.
func (g *txnGenerator) put(odd bool) *pb.RequestOp {
	p := &pb.PutRequest{Key: g.key(), Value: g.value(), Lease: int64(g.IntN(3) * g.IntN(txnLeases+2))}
	p.PrevKv = odd && g.IntN(2) == 0
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

// Alarms, users and requests that are two things at once are etcd's to judge.
func TestRestrictedTxnsAreNotPlain(t *testing.T) {
	s := open(t, t.TempDir())
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}}}
	if r := (&pb.InternalRaftRequest{Txn: txn}); !s.plainTxn(r) {
		t.Fatal("not a plain transaction")
	}
	for name, r := range map[string]*pb.InternalRaftRequest{
		"range":  {Txn: txn, Range: &pb.RangeRequest{Key: []byte("k")}},
		"put":    {Txn: txn, Put: &pb.PutRequest{Key: []byte("k")}},
		"delete": {Txn: txn, DeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}},
	} {
		if s.plainTxn(r) {
			t.Errorf("plain although it is also a %s", name)
		}
	}
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 3, Alarm: pb.AlarmType_NOSPACE}
	applyNext(t, s, &pb.InternalRaftRequest{Alarm: alarm})
	res := applyNext(t, s, &pb.InternalRaftRequest{Txn: txn})
	if s.plainTxn(&pb.InternalRaftRequest{Txn: txn}) || res.Err == nil {
		t.Errorf("a transaction that puts was applied although there is an alarm: %v", text(res))
	}
}

// If a transaction that turns out to write nothing were not counted as a change, a client that
// repeats it would make the log longer and longer.
func TestRefusedTxnsReachTheFile(t *testing.T) {
	s := open(t, t.TempDir())
	s.Promote(0)
	r := &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}},
	}}
	if !s.plainTxn(r) {
		t.Fatal("not a plain transaction")
	}
	if res := applyNext(t, s, r); res.Resp.(*pb.TxnResponse).Succeeded {
		t.Fatal("the comparison holds")
	}
	if !s.dirty.Load() {
		t.Error("no commit will follow, so the log would have to keep the entry")
	}
	s.Commit()
	if s.Durable() != s.Applied() {
		t.Errorf("committed up to %s", s.Durable())
	}
}
