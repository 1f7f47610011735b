package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/systemd"
)

const (
	// readTimeout bounds one attempt to read as a client would; readPause is between two.
	readTimeout = 2 * time.Second
	readPause   = 20 * time.Millisecond
)

// service tells those outside how the cluster is: the service manager (sd_notify) and
// scripts that wait for a file. Only a leader tells; a follower has nothing to say. What goes
// wrong here is logged and ends nothing.
type service struct {
	// read tries to read as a client would; healthy reports whether this process still
	// answers; status is a line for people.
	read    func(context.Context) error
	healthy func(context.Context) bool
	status  func() string
	warn    func(msg string, args ...any)
	ended   <-chan struct{}

	readyFile string
	fileText  func() string

	changed chan struct{}
	words   chan []string
	stopped chan struct{} // closed when the cluster is being stopped
}

func newService(m *Member) *service {
	return &service{
		read: m.readAsClient, healthy: m.answers, warn: m.logger.Warn, ended: m.ended,
		status:    func() string { return statusLine(m.roster()) },
		readyFile: os.Getenv(member.ReadyFileEnv),
		fileText: func() string {
			return fmt.Sprintf("PID=%d\nLEADER=%s\nCLIENT=%s\n", m.self.PID, m.address, m.cfg.Client.Listen)
		},
		changed: make(chan struct{}, 1), words: make(chan []string, 16), stopped: make(chan struct{}),
	}
}

// rosterChanged asks for a new status line.
func (s *service) rosterChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// stop says that the cluster is being stopped. It is called once, by the leader's loop.
func (s *service) stop() { close(s.stopped) }

// say sends words in their order. It does not wait.
func (s *service) say(words ...string) {
	select {
	case s.words <- words:
	default:
		s.warn("the service manager does not listen", "lost", words)
	}
}

// lead tells from now on, until the process ends.
func (s *service) lead() {
	if !systemd.Managed() && s.readyFile == "" {
		return
	}
	s.tell(systemd.MainPID())
	ready := make(chan struct{})
	go s.awaitRead(ready)
	var beat <-chan time.Time
	every, err := systemd.WatchdogInterval()
	if err != nil {
		s.warn("the watchdog is left alone", "error", err)
	} else if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		beat = t.C
	}
	told, served := "", false
	for {
		select {
		case <-ready:
			ready, served = nil, true
			told = s.status()
			s.tell(systemd.Ready, systemd.MainPID(), systemd.Status(told))
			s.writeReadyFile()
		case <-s.changed:
			if now := s.status(); served && now != told {
				told = now
				s.tell(systemd.Status(told))
			}
		case words := <-s.words:
			s.tell(words...)
		case <-beat:
			s.beat(every)
		case <-s.stopped:
			s.tell(systemd.Stopping, systemd.Status("stops"))
			s.removeReadyFile()
			return
		case <-s.ended:
			return
		}
	}
}

// beat answers the watchdog only for a process that does its work.
func (s *service) beat(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if s.healthy(ctx) {
		s.tell(systemd.Watchdog)
	} else {
		s.warn("does not answer itself: the watchdog is not told", "within", within)
	}
}

func (s *service) tell(words ...string) {
	if err := systemd.Notify(words...); err != nil {
		s.warn("the service manager was not told", "error", err)
	}
}

// awaitRead closes ready once a read has succeeded.
func (s *service) awaitRead(ready chan<- struct{}) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		err := s.read(ctx)
		cancel()
		if err == nil {
			close(ready)
			return
		}
		select {
		case <-time.After(readPause):
		case <-s.stopped:
			return
		case <-s.ended:
			return
		}
	}
}

func (s *service) writeReadyFile() {
	if s.readyFile == "" {
		return
	}
	if err := renameio.WriteFile(s.readyFile, []byte(s.fileText()), 0o644); err != nil {
		s.warn("the ready file was not written", "error", err)
	}
}

func (s *service) removeReadyFile() {
	if err := dropReadyFile(s.readyFile); err != nil {
		s.warn("the ready file was not removed", "error", err)
	}
}

// dropReadyFile removes the file, also one that a crash left behind: it would lie until
// this leader serves.
func dropReadyFile(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--ready-file: %w", err)
	}
	return nil
}

func statusLine(r *roster.Roster) string {
	followers, inSync := 0, 0
	for _, m := range r.Members {
		if m.Address == r.Leader {
			continue
		}
		followers++
		if m.State == roster.InSync {
			inSync++
		}
	}
	return fmt.Sprintf("leader %s, epoch %d, %d followers (%d in sync), clients at %s", r.Leader, r.Epoch, followers, inSync, r.Client)
}

// answers reports whether the loop takes a question in time.
func (m *Member) answers(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		if m.ask(func() {}) {
			close(done)
		}
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// readAsClient reads a key at the address for clients. Who needs a certificate or a
// password for it, which this process has not, was answered all the same; the read itself is then
// made here.
func (m *Member) readAsClient(ctx context.Context) error {
	if m.clientTLS == nil {
		conn, err := grpc.NewClient("passthrough:///"+m.cfg.Client.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Limit: 1})
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied:
		default:
			return fmt.Errorf("read at %s: %w", m.cfg.Client.Listen, err)
		}
	}
	return clientNode{m}.Read(ctx)
}
