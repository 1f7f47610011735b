package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/wire"
)

// opened is a member with an open log and a store, of which nothing runs.
func opened(t *testing.T) *Member {
	t.Helper()
	dir := t.TempDir()
	log, err := replog.Create(replog.Options{Dir: filepath.Join(dir, "log"), TailBytes: followerTailBytes}, entry.Position{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	st, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	m := &Member{logger: hclog.NewNullLogger(), mail: newMailbox(), ended: make(chan struct{}), cfg: &config.Config{},
		replica: &replica{cur: copyOf{log: log, store: st}}}
	m.published.Store(&published{roster: &roster.Roster{}})
	m.writer, m.applier = newWriter(m), newApplier(m)
	m.proposals = newProposals(10, 10, nil)
	m.upstream, m.downstream = newUpstream(m), newDownstream(m)
	return m
}

// TestEntriesAwaitTheirTurnInMemory: what is appended and not applied yet stays
// within reach of the applier, however much it is, and no follower takes more
// than a bounded amount of it.
func TestEntriesAwaitTheirTurnInMemory(t *testing.T) {
	m := opened(t)
	m.turn.mu.Lock() // there is no core to be fed
	log := m.replica.current().log
	next := uint64(1)
	offer := func() {
		e := entry.Entry{Index: next, Epoch: 1, Data: make([]byte, 1<<20)}
		m.writer.appendReceived(&received{entries: []entry.Entry{e}})
		m.writer.next()()
		next = log.Last().Index + 1
	}
	for range 2 * maxUnappliedBytes >> 20 {
		offer()
	}
	if n := log.MemoryBytes(); n < followerTailBytes || n > maxUnappliedBytes+2<<20 {
		t.Fatalf("%d bytes wait to be applied, at most about %d may", n, maxUnappliedBytes)
	}
	if !m.writer.starved || !m.writer.hungry {
		t.Error("nothing was refused")
	}
	if es, err := log.Entries(1, 1, 1); err != nil || len(es) != 1 {
		t.Fatalf("the first entry, which is not applied: %v, %v", es, err)
	}
	log.Applied(log.Last().Index)
	if n := log.MemoryBytes(); n > followerTailBytes {
		t.Errorf("%d bytes in memory, all of it applied", n)
	}
	m.writer.starved = false
	last := log.Last().Index
	if offer(); log.Last().Index != last+1 {
		t.Error("nothing is taken any more")
	}
}

// sent is a stream to a follower that notes what it is sent.
type sent struct {
	grpc.ServerStream
	ctx      context.Context
	messages chan *wire.LeaderMessage
}

func (s *sent) Context() context.Context             { return s.ctx }
func (s *sent) Send(m *wire.LeaderMessage) error     { s.messages <- m; return nil }
func (s *sent) Recv() (*wire.FollowerMessage, error) { return nil, errors.New("not here") }

// TestALeaderThatWaitsForASnapshotBeats: the follower must not take it for dead.
func TestALeaderThatWaitsForASnapshotBeats(t *testing.T) {
	m := opened(t)
	stream := &sent{ctx: t.Context(), messages: make(chan *wire.LeaderMessage, 4)}
	s := &session{d: m.downstream, stream: stream, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	done := make(chan error)
	go func() {
		snap, err := s.takeSnapshot()
		if err == nil {
			err = snap.Close()
		}
		done <- err
	}()
	// The applying goroutine is busy: nobody does the job.
	for range 3 {
		s.update(func() { s.beat = true })
		if msg := <-stream.messages; msg.GetHeartbeat() == nil {
			t.Fatalf("sent %v, want a sign of life", msg)
		}
	}
	<-m.applier.notify // the job is there
	m.applier.mu.Lock()
	jobs := m.applier.jobs
	m.applier.mu.Unlock()
	for _, job := range jobs {
		job()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestASnapshotThatIsNotWantedAnyMore: while it waited for its turn another
// came, or this member began to take over. Its file is removed and nothing replaced.
func TestASnapshotThatIsNotWantedAnyMore(t *testing.T) {
	m := opened(t)
	path := filepath.Join(t.TempDir(), "received-1.db")
	if err := os.WriteFile(path, []byte("no database at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	turn := m.installs.Add(1)
	m.installs.Add(1)
	m.installNow(entry.Position{Epoch: 1, Index: 5}, path, turn)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if got := m.replica.current().store.Applied(); !got.IsZero() {
		t.Errorf("the copy is at %s", got)
	}
	for _, mail := range m.mail.queue {
		if _, ok := mail.event.(core.Installed); ok {
			t.Error("it is said to be installed")
		}
	}
	select {
	case <-m.ended:
		t.Error("the process ends for it")
	case <-time.After(0):
	}
}
