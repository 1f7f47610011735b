package link

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

	"github.com/dynast-io/dynast/shared/member/wire"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

const (
	sendBytes     = 1 << 20   // of entries in one message
	snapshotChunk = 512 << 10 // bytes
)

// session is one follower's stream. The loop says what to send; the session's goroutine sends
// it as fast as the follower takes it.
type session struct {
	id     roster.ID
	d      *downstream
	stream wire.Member_FollowServer
	wake   chan struct{}
	gone   chan struct{} // closed when the receiving side has ended
	once   sync.Once

	mu       sync.Mutex
	mode     mode
	sent     entry.Position  // the follower has, or has been sent, all entries up to here
	snapshot bool            // requested and not started
	copy     *entry.Position // of the snapshot that is being sent, or was sent
	copied   bool            // the snapshot is sent; entries follow when it is acknowledged
	beat     bool
	deaths   bool
	config   bool   // the configuration is to be sent
	informed uint64 // checksum of the configuration that the follower uses
	leave    *string
	digest   *int64 // the revision of a DigestRequest
	defrag   bool

	acked atomic.Uint64 // the last index known to be in the follower's log

	// Only the sending goroutine uses these. reader is nil while the entries come from memory.
	reader     *replog.Reader
	sentRoster []byte
	sentRetain uint64
	// What was sent last, and when, in nanoseconds of Unix time.
	sentCommit atomic.Uint64
	sentAt     atomic.Int64
}

type mode uint8

const (
	modeIdle     mode = iota // before the core has decided
	modeEntries              // sends the entries after sent
	modeSnapshot             // a snapshot is being sent, or is not acknowledged yet
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

// needed returns the index after which this follower needs the log.
func (s *session) needed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mode != modeSnapshot:
		return s.acked.Load()
	case s.copy != nil:
		return s.copy.Index
	default:
		return math.MaxUint64 // the position of the snapshot is not known yet
	}
}

// update changes what is to be sent.
func (s *session) update(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	s.notify()
}

// receive handles acknowledgements and heartbeats.
func (s *session) receive() {
	defer s.end()
	for {
		msg, err := s.stream.Recv()
		if err != nil {
			return
		}
		var index, epoch, known uint64
		if now := s.d.Published(); string(msg.Roster) == string(now.Bytes) {
			known = now.Roster.Version
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
			s.d.replica.Answered(s.id, body.Digest)
			continue
		case *wire.FollowerMessage_Defragmented:
			s.d.Post(core.Defragmented{ID: s.id, Error: body.Defragmented.GetError()})
			continue
		default:
			continue
		}
		if epoch != 0 && !s.d.replica.Contains(entry.Position{Epoch: epoch, Index: index}) {
			index = 0 // the follower's log does not match this log
		}
		s.mu.Lock()
		if s.mode == modeSnapshot && s.copied && index >= s.copy.Index {
			s.mode, s.sent, s.copy, s.copied = modeEntries, *s.copy, nil, false
			s.notify()
		}
		if s.mode != modeEntries {
			index = 0 // the copy is being replaced, or the core has not judged it yet
		}
		s.mu.Unlock()
		s.d.silence.heardFrom(s.id)
		s.acked.Store(max(index, s.acked.Load()))
		s.d.Put(core.Progress{ID: s.id, Index: index, Known: known})
		s.d.Feed()
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

// sendNext sends one message. It returns false when there is nothing more to send.
func (s *session) sendNext() (bool, error) {
	s.mu.Lock()
	after, md := s.sent, s.mode
	beat := s.beat
	s.beat = false // every message is a sign of life
	request := s.nextRequest()
	s.mu.Unlock()
	if request != nil {
		return true, request()
	}
	if md == modeEntries {
		if sent, err := s.sendEntries(after); sent || err != nil {
			return true, err
		}
	}
	if !beat && string(s.d.RosterBytes()) == string(s.sentRoster) {
		return false, nil
	}
	return false, s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Heartbeat{Heartbeat: &wire.Heartbeat{Address: s.d.Self.Address.String()}}})
}

// nextRequest takes one of the requested messages other than entries. The rest stays
// requested. The caller holds the lock.
func (s *session) nextRequest() func() error {
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
		return message(&wire.LeaderMessage{Body: &wire.LeaderMessage_Deaths{Deaths: s.d.Deaths()}})
	case s.config:
		s.config = false
		cfg := &wire.Configuration{Encoded: s.d.Settings.Now().WithoutServices().Encode(), Sockets: s.d.sockets.All().Names()}
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

// put adds the fields that every message carries, and sends the message.
func (s *session) put(msg *wire.LeaderMessage) error {
	msg.Roster, msg.Epoch, msg.Commit = s.d.RosterBytes(), s.d.Epoch.Load(), s.d.Committed.Load()
	s.sentRoster = msg.Roster
	if from := s.d.RetainFrom.Load(); from != s.sentRetain {
		msg.Kept, s.sentRetain = from, from
	}
	s.sentCommit.Store(msg.Commit)
	s.sentAt.Store(time.Now().UnixNano())
	return s.stream.Send(msg)
}

// resume reports whether a log that ends at last matches the beginning of this log, and the
// entries after it are still here. An empty copy gets the database instead, which is smaller
// than all entries that were ever written.
func (s *session) resume(last entry.Position) bool {
	log := s.d.replica.Current().Log
	if epoch, ok := log.EpochAt(last.Index); ok {
		if epoch != last.Epoch {
			return false
		}
	} else if last.IsZero() {
		return false
	} else if err := s.read(log, last); err != nil {
		s.d.Log.Debug("a follower cannot go on from its log", "member", s.id.Address, "error", err)
		return false
	}
	s.mu.Lock()
	s.sent = last
	s.mu.Unlock()
	s.acked.Store(last.Index)
	return true
}

// read makes the reader continue after a position that is no longer in memory.
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
	es, err := s.entriesAfter(after)
	if err != nil {
		s.closeReader()
		if gone := s.stream.Context().Err(); gone != nil {
			return false, gone
		}
		if !errors.Is(err, replog.ErrCompacted) {
			s.d.Log.Warn("cannot read entries for a follower, sending it a snapshot", "member", s.id.Address, "error", err)
		}
		s.mu.Lock()
		s.mode = modeIdle
		s.mu.Unlock()
		s.d.Post(core.Overtaken{ID: s.id})
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

// entriesAfter returns the next entries to send, or none if all were sent. The error is
// ErrCompacted if they are no longer in memory or on disk.
func (s *session) entriesAfter(after entry.Position) ([]entry.Entry, error) {
	log := s.d.replica.Current().Log
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

// sendSnapshot streams the database. The snapshot is taken on the applier's goroutine, between
// two entries. Reading it blocks no other goroutine.
func (s *session) sendSnapshot() error {
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
	s.d.Log.Info("sending a snapshot", "to", s.id.Address, "at", snap.Position, "bytes", snap.Size)
	s.d.rebuilt(s.id, fmt.Sprintf("gets the whole database at %s, %d bytes", snap.Position, snap.Size))
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

// takeSnapshot waits for the applier's goroutine, which may first have to write much to the
// disk.
func (s *session) takeSnapshot() (snap store.Snapshot, err error) {
	lost := s.alive(func(ctx context.Context) { snap, err = s.d.replica.Snapshot(ctx) })
	if lost != nil && err == nil {
		return snap, errors.Join(lost, snap.Close())
	}
	return snap, errors.Join(lost, err)
}

// alive runs f, which may take long, and sends the follower heartbeats meanwhile. The error is
// the stream's. The context of f ends with the stream.
func (s *session) alive(f func(context.Context)) (lost error) {
	ctx, cancel := context.WithCancel(s.stream.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	defer s.notify() // check afterwards what else is to be sent
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
				lost = s.put(&wire.LeaderMessage{Body: &wire.LeaderMessage_Heartbeat{Heartbeat: &wire.Heartbeat{Address: s.d.Self.Address.String()}}})
			}
			if lost != nil {
				cancel()
			}
		}
	}
}

// chunkWriter cuts a database into messages. It holds back the last piece, so that the piece
// can carry the checksum of the whole.
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
