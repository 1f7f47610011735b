package operate

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

	"github.com/dynast-io/dynast/shared/host/systemd"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

const (
	// readTimeout bounds one attempt to read as a client would. readPause separates attempts.
	readTimeout = 2 * time.Second
	readPause   = 20 * time.Millisecond
)

// service reports the state of the cluster to the service manager (sd_notify), and to scripts
// that wait for the ready file. Only a leader reports. An error is logged and ends nothing.
type service struct {
	// read tries to read as a client would. healthy reports whether this process still
	// answers. status returns a status line for people.
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

func newService(o *Operators) *service {
	return &service{
		read: o.readAsClient, healthy: o.answers, warn: o.Log.Warn, ended: o.Ended(),
		status:    func() string { return statusLine(o.Roster()) },
		readyFile: os.Getenv(member.ReadyFileEnv),
		fileText: func() string {
			return fmt.Sprintf("PID=%d\nLEADER=%s\nCLIENT=%s\n", o.Self.Process.PID, o.Self.Address, o.Settings.Start.Client.Listen)
		},
		changed: make(chan struct{}, 1), words: make(chan []string, 16), stopped: make(chan struct{}),
	}
}

// rosterChanged requests a new status line.
func (s *service) rosterChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// stop reports that the cluster is stopping. The leader's loop calls it once.
func (s *service) stop() { close(s.stopped) }

// say queues messages for the service manager, in order. It does not wait.
func (s *service) say(words ...string) {
	select {
	case s.words <- words:
	default:
		s.warn("the queue to the service manager is full, dropped a message", "lost", words)
	}
}

// lead reports to the service manager until the process exits.
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
		s.warn("cannot use the watchdog of the service manager", "error", err)
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
			s.tell(systemd.Stopping, systemd.Status("stopping"))
			s.removeReadyFile()
			return
		case <-s.ended:
			return
		}
	}
}

// beat notifies the watchdog only if this process still does its work.
func (s *service) beat(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if s.healthy(ctx) {
		s.tell(systemd.Watchdog)
	} else {
		s.warn("this process does not answer in time, so the watchdog is not notified", "within", within)
	}
}

func (s *service) tell(words ...string) {
	if err := systemd.Notify(words...); err != nil {
		s.warn("cannot notify the service manager", "error", err)
	}
}

// awaitRead closes ready when a read has succeeded.
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
		s.warn("cannot write the ready file", "error", err)
	}
}

func (s *service) removeReadyFile() {
	if err := DropReadyFile(s.readyFile); err != nil {
		s.warn("cannot remove the ready file", "error", err)
	}
}

// DropReadyFile removes the ready file. A file that a crash left behind would otherwise say that
// this leader is ready before it is.
func DropReadyFile(path string) error {
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
	return fmt.Sprintf("leader %s, epoch %d, %s (%d in sync), clients at %s", r.Leader, r.Epoch, plural.Count(followers, "follower"), inSync, r.Client)
}

// answers reports whether the loop handles a question before ctx ends.
func (o *Operators) answers(ctx context.Context) bool {
	done := make(chan struct{})
	o.Do(func() { close(done) })
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// engineServes returns nil once the engine of this host serves clients. That does not depend on the other
// hosts for longer than a few seconds: a host that waited for a majority would be stopped by a service
// manager that waits for this one, and its services with it.
func (o *Operators) engineServes() error {
	if r := o.serviceReport(); r != nil {
		for _, s := range r.Services {
			if s.Name == member.EngineService && len(s.Instances) == 1 && s.Instances[0].Ready {
				return nil
			}
		}
	}
	return errors.New("the engine does not serve clients yet")
}

// readAsClient reads a key at the client address. If that needs a certificate or a password,
// which this process does not have, then the refusal already shows that clients get answers. The
// read itself is then done in this process. In a cluster of several hosts the engine says when it
// serves.
func (o *Operators) readAsClient(ctx context.Context) error {
	if o.Dir.ManyHosts() {
		return o.engineServes()
	}
	// If clients use all places, one more connection would have to wait: skip it.
	if !o.clients.TLS() && !o.files.ClientsWait() {
		conn, err := grpc.NewClient("passthrough:///"+o.Settings.Start.Client.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
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
			return fmt.Errorf("read at %s: %w", o.Settings.Start.Client.Listen, err)
		}
	}
	return o.clients.Read(ctx)
}
