package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/wire"
)

const (
	sendBytes     = 1 << 20   // of entries in one message
	snapshotChunk = 512 << 10 // bytes
)

// session is one follower's stream. The loop says what to send; the session's
// goroutine sends it at the pace that the follower takes it.
type session struct {
	id     roster.ID
	d      *downstream
	stream wire.Member_FollowServer
	wake   chan struct{}
	gone   chan struct{} // closed when the receiving side ended
	once   sync.Once

	mu       sync.Mutex
	mode     mode
	sent     entry.Position  // the follower has, or is sent, what is up to here
	snapshot bool            // asked for and not begun
	copy     *entry.Position // of the snapshot that is being sent, or was
	copied   bool            // it is sent as a whole; entries follow its acknowledgement
	beat     bool
	deaths   bool
	config   bool   // the configuration is to be sent
	informed uint64 // checksum of the configuration that the follower goes by
	leave    *string
	digest   *int64 // the revision of a DigestRequest
	defrag   bool

	acked atomic.Uint64 // how far the follower's log is known to reach

	// The sending goroutine's own. reader is nil while what is sent is in memory.
	reader     *replog.Reader
	sentRoster []byte
	toldKept   uint64
	// What was told last, and when, in nanoseconds of Unix time.
	toldCommit atomic.Uint64
	toldAt     atomic.Int64
}

type mode uint8

const (
	modeIdle     mode = iota // before the core has decided
	modeEntries              // entries from cursor on
	modeSnapshot             // a snapshot is on its way, or not acknowledged yet
)

func (s *session) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) end() {
	s.once.Do(func() { close(s.gone) })
}

// needed is the index after which this follower needs the log.
func (s *session) needed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mode != modeSnapshot:
		return s.acked.Load()
	case s.copy != nil:
		return s.copy.Index
	default:
		return math.MaxUint64 // there is no saying where the snapshot will be
	}
}

// update changes what is to be sent.
func (s *session) update(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	s.notify()
}

// receive hears acknowledgements and heartbeats.
func (s *session) receive() {
	defer s.end()
	for {
		msg, err := s.stream.Recv()
		if err != nil {
			return
		}
		var index, epoch, known uint64
		if now := s.d.m.published.Load(); string(msg.Roster) == string(now.bytes) {
			known = now.roster.Version
		}
		switch body := msg.Body.(type) {
		case *wire.FollowerMessage_Ack:
			index, epoch = body.Ack.GetIndex(), body.Ack.GetEpoch()
		case *wire.FollowerMessage_Heartbeat:
			index, epoch = body.Heartbeat.GetIndex(), body.Heartbeat.GetEpoch()
			s.mu.Lock()
			s.informed = body.Heartbeat.GetConfig()
			s.mu.Unlock()
		case *wire.FollowerMessage_Digest:
			s.d.m.comparison.answered(s.id, body.Digest)
			continue
		case *wire.FollowerMessage_Defragmented:
			s.d.m.post(core.Defragmented{ID: s.id, Error: body.Defragmented.GetError()})
			continue
		default:
			continue
		}
		if epoch != 0 && !s.d.m.mine(entry.Position{Epoch: epoch, Index: index}) {
			index = 0 // of a copy that goes on where this log does not
		}
		s.mu.Lock()
		if s.mode == modeSnapshot && s.copied && index >= s.copy.Index {
			s.mode, s.sent, s.copy, s.copied = modeEntries, *s.copy, nil, false
			s.notify()
		}
		if s.mode != modeEntries {
			index = 0 // of a copy that is being replaced, or that nobody has judged yet
		}
		s.mu.Unlock()
		s.d.m.silence.broken(s.id)
		s.acked.Store(max(index, s.acked.Load()))
		s.d.m.postNow(core.Progress{ID: s.id, Index: index, Known: known})
	}
}

// send sends until the stream ends.
func (s *session) send() error {
	for {
		select {
		case <-s.wake:
		case <-s.gone:
			return nil
		case <-s.stream.Context().Done():
			return s.stream.Context().Err()
		}
		for {
			more, err := s.sendNext()
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
}

// sendNext sends one message; false when there is nothing more to send.
func (s *session) sendNext() (bool, error) {
	m := s.d.m
	s.mu.Lock()
	after, md := s.sent, s.mode
	beat := s.beat
	s.beat = false // whatever is sent is a sign of life
	errand := s.nextErrand()
	s.mu.Unlock()
	if errand != nil {
		return true, errand()
	}
	if md == modeEntries {
		if sent, err := s.sendEntries(after); sent || err != nil {
			return true, err
		}
	}
	if !beat && string(m.rosterBytes()) == string(s.sentRoster) {
		return false, nil
	}
	return false, s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Heartbeat{Heartbeat: &wire.Heartbeat{Address: m.address.String()}}})
}

// nextErrand takes one of the things that are asked for besides entries; the
// rest stays asked for. The lock is held.
func (s *session) nextErrand() func() error {
	message := func(body *wire.LeaderMessage) func() error {
		return func() error { return s.put(body) }
	}
	switch {
	case s.leave != nil:
		leave := &wire.Leave{Reason: *s.leave}
		s.leave = nil
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_Leave{Leave: leave}})
	case s.deaths:
		s.deaths = false
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_Deaths{Deaths: s.d.m.deathsMessage()}})
	case s.config:
		s.config = false
		cfg := &wire.Configuration{Encoded: s.d.m.config().Encode()}
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_Configuration{Configuration: cfg}})
	case s.defrag:
		s.defrag = false
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_Defragment{Defragment: &wire.Defragment{}}})
	case s.digest != nil:
		request := &wire.DigestRequest{Revision: *s.digest}
		s.digest = nil
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_DigestRequest{DigestRequest: request}})
	case s.snapshot:
		s.snapshot = false
		return s.sendSnapshot
	}
	return nil
}

// put adds what rides on every message.
func (s *session) put(msg *wire.LeaderMessage) error {
	m := s.d.m
	msg.Roster, msg.Epoch, msg.Commit = m.rosterBytes(), m.epoch.Load(), m.committed.Load()
	s.sentRoster = msg.Roster
	if kept := m.keptFrom.Load(); kept != s.toldKept {
		msg.Kept, s.toldKept = kept, kept
	}
	s.toldCommit.Store(msg.Commit)
	s.toldAt.Store(time.Now().UnixNano())
	return s.stream.Send(msg)
}

// resume reports whether a log that ends at last is a beginning of this one, and
// the rest is still here to be sent. An empty copy gets the database, which has less in
// it than all that was ever written.
func (s *session) resume(last entry.Position) bool {
	log := s.d.m.replica.current().log
	if epoch, ok := log.EpochAt(last.Index); ok {
		if epoch != last.Epoch {
			return false
		}
	} else if last.IsZero() {
		return false
	} else if err := s.read(log, last); err != nil {
		s.d.m.logger.Debug("a follower cannot go on from its log", "member", s.id.Address, "error", err)
		return false
	}
	s.mu.Lock()
	s.sent = last
	s.mu.Unlock()
	s.acked.Store(last.Index)
	return true
}

// read makes the reader go on behind a position that is not in memory any more.
func (s *session) read(log *replog.Log, after entry.Position) (err error) {
	if s.reader != nil && s.reader.After() == after {
		return nil
	}
	s.closeReader()
	lost := s.alive(func(context.Context) { s.reader, err = log.ReadAfter(after) })
	return errors.Join(lost, err)
}

func (s *session) closeReader() {
	if s.reader != nil {
		s.reader.Close()
		s.reader = nil
	}
}

func (s *session) sendEntries(after entry.Position) (bool, error) {
	m := s.d.m
	es, err := s.entriesAfter(after)
	if err != nil {
		s.closeReader()
		if gone := s.stream.Context().Err(); gone != nil {
			return false, gone
		}
		if !errors.Is(err, replog.ErrCompacted) {
			m.logger.Error("entries for a follower cannot be read, it is sent a snapshot", "member", s.id.Address, "error", err)
		}
		s.mu.Lock()
		s.mode = modeIdle
		s.mu.Unlock()
		m.post(core.Overtaken{ID: s.id})
		return false, nil
	}
	if len(es) == 0 {
		return false, nil
	}
	out := wire.FromEntries(after, es)
	s.mu.Lock()
	if s.mode == modeEntries && s.sent == after {
		s.sent = es[len(es)-1].Position()
	}
	s.mu.Unlock()
	return true, s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Entries{Entries: out}})
}

// entriesAfter are the next entries to be sent, none if all are. ErrCompacted: they are
// neither in memory nor on the disk any more.
func (s *session) entriesAfter(after entry.Position) ([]entry.Entry, error) {
	log := s.d.m.replica.current().log
	es, err := log.Entries(after.Index+1, log.Last().Index, sendBytes)
	if !errors.Is(err, replog.ErrCompacted) {
		s.closeReader()
		return es, err
	}
	if err := s.read(log, after); err != nil {
		return nil, err
	}
	return s.reader.Next(sendBytes)
}

// sendSnapshot streams the database. The snapshot is taken on the applying
// goroutine, between two entries; reading it disturbs nobody.
func (s *session) sendSnapshot() error {
	m := s.d.m
	snap, err := s.takeSnapshot()
	if err != nil {
		return fmt.Errorf("snapshot for %s: %w", s.id, err)
	}
	defer snap.Close()
	s.mu.Lock()
	if s.mode == modeSnapshot {
		s.copy = &snap.Position
	}
	s.mu.Unlock()
	m.logger.Info("sending a snapshot", "to", s.id.Address, "at", snap.Position, "bytes", snap.Size)
	m.history.rebuilds(s.id, fmt.Sprintf("gets the database as it is at %s, %d bytes", snap.Position, snap.Size))
	w := &chunkWriter{s: s, position: wire.FromPosition(snap.Position), size: snap.Size}
	if _, err := snap.WriteTo(w); err != nil {
		return fmt.Errorf("send snapshot to %s: %w", s.id, err)
	}
	if err := w.finish(); err != nil {
		return fmt.Errorf("send snapshot to %s: %w", s.id, err)
	}
	s.mu.Lock()
	s.copied = s.mode == modeSnapshot && s.copy == &snap.Position
	s.mu.Unlock()
	return nil
}

// takeSnapshot waits for the applying goroutine, which may have much to write
// to the disk before.
func (s *session) takeSnapshot() (snap store.Snapshot, err error) {
	lost := s.alive(func(ctx context.Context) { snap, err = s.d.m.takeSnapshot(ctx) })
	if lost != nil && err == nil {
		return snap, errors.Join(lost, snap.Close())
	}
	return snap, errors.Join(lost, err)
}

// alive waits for f, which may take long. The follower hears meanwhile that this member
// is alive. The error is the stream's; the context ends with it.
func (s *session) alive(f func(context.Context)) (lost error) {
	ctx, cancel := context.WithCancel(s.stream.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	defer s.notify() // what else is wanted is looked at afterwards
	for {
		select {
		case <-done:
			return lost
		case <-s.wake:
			s.mu.Lock()
			beat := s.beat
			s.beat = false
			s.mu.Unlock()
			if beat && lost == nil {
				lost = s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Heartbeat{Heartbeat: &wire.Heartbeat{Address: s.d.m.address.String()}}})
			}
			if lost != nil {
				cancel()
			}
		}
	}
}

// chunkWriter cuts a database into messages. The last piece is held back, so
// that it can carry the checksum of all.
type chunkWriter struct {
	s        *session
	position *wire.Position
	size     int64
	offset   int64
	buf      []byte
	sum      sha256Sum
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	for len(w.buf) > snapshotChunk {
		if err := w.chunk(w.buf[:snapshotChunk], false); err != nil {
			return 0, err
		}
		w.buf = append(w.buf[:0], w.buf[snapshotChunk:]...)
	}
	return len(p), nil
}

func (w *chunkWriter) finish() error { return w.chunk(w.buf, true) }

func (w *chunkWriter) chunk(data []byte, last bool) error {
	if w.sum == nil {
		w.sum = sha256.New()
	}
	w.sum.Write(data)
	c := &wire.SnapshotChunk{Position: w.position, Size: w.size, Offset: w.offset, Data: data, Last: last}
	w.offset += int64(len(data))
	if last {
		c.Size, c.Sha256 = w.offset, w.sum.Sum(nil)
	}
	return w.s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Snapshot{Snapshot: c}})
}

type sha256Sum interface {
	io.Writer
	Sum([]byte) []byte
}
