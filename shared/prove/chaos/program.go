package chaos

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// Roles of the programs that run as services. The value of roleVariable says which one a process
// has.
const (
	roleBurst    = "burst"    // writes numbered lines, and has a child that does so too
	roleChild    = "child"    // the child
	roleAnswer   = "answer"   // answers on an inherited socket, and notifies
	roleStubborn = "stubborn" // ignores SIGTERM
	roleOnce     = "once"     // ends by itself with status 0
	roleCoded    = "coded"    // ends by itself with a random status
	roleCalm     = "calm"     // only writes; no fault ends it
)

// ProgramCommand is the hidden command of the program under test that calls RunProgram.
const ProgramCommand = "chaos-program"

const (
	roleVariable = "DYNAST_CHAOS_ROLE"
	// traceVariable names the directory in which the programs leave their traces.
	traceVariable = "DYNAST_CHAOS_TRACE"
)

// The files in the directory of the traces.
const (
	journalFile  = "journal"
	linesSuffix  = ".lines"  // how many lines a process has written
	burstSuffix  = ".burst"  // how many lines a process shall write at once
	lockSuffix   = ".lock"   // two processes of one instance cannot both have it
	actionsFile  = "actions" // what the run did, and when
	answerSocket = 3         // the descriptor of the first inherited socket
)

// program is the running program.
type program struct {
	dir, instance, token string
	self                 proc.Identity
	written              uint64 // lines
	acknowledged         *os.File
}

// RunProgram is the whole life of a program that Run started as a service. It returns only with an
// error.
func RunProgram() error {
	role, token := os.Getenv(roleVariable), os.Getenv("DYNAST_INSTANCE_TOKEN")
	p := program{
		dir: os.Getenv(traceVariable), instance: os.Getenv("SERVICE") + "/" + os.Getenv("INSTANCE"),
		token: token[:min(len(token), 8)], self: proc.Self(),
	}
	if role == "" || p.dir == "" || token == "" {
		return errors.New("this command is for the services of 'dynast chaos' only")
	}
	err := p.live(role)
	return errors.Join(err, p.say("error %v", err))
}

func (p *program) live(role string) error {
	kind, own := "start", strings.ReplaceAll(p.instance, "/", "-")
	if role == roleChild {
		kind, own = "child", own+"-child"
	}
	lock, err := p.claim(kind, own)
	if err != nil {
		return err
	}
	defer lock.Close()
	stop := make(chan os.Signal, 1)
	if role == roleStubborn {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(stop, syscall.SIGTERM)
	}
	if p.acknowledged, err = os.Create(p.file(linesSuffix)); err != nil {
		return err
	}
	code := 0
	var end <-chan time.Time
	switch role {
	case roleBurst:
		go p.keepChild()
	case roleAnswer:
		if err := answer(); err != nil {
			return err
		}
	case roleOnce:
		end = time.After(2 * time.Second) // long enough to outlive a leader
	case roleCoded:
		code = 1 + rand.IntN(250)
		end = time.After(time.Duration(100+rand.IntN(900)) * time.Millisecond)
	}
	for {
		if err := p.burst(5 + rand.IntN(10)); err != nil {
			return err
		}
		if err := p.requested(); err != nil {
			return err
		}
		select {
		case <-stop:
			return p.exit(0)
		case <-end:
			return p.exit(code)
		case <-time.After(time.Duration(20+rand.IntN(40)) * time.Millisecond):
		}
	}
}

// claim takes the lock that only one process of an instance can have, and writes the first line
// of the journal. If another process has the lock, the journal tells so, and the error too.
func (p *program) claim(kind, name string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(p.dir, name+lockSuffix), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		other, _ := io.ReadAll(lock)
		return nil, errors.Join(errors.New("the instance has another process"), p.say("%s %s beside %s", doubled, kind, strings.TrimSpace(string(other))), lock.Close())
	}
	if err := errors.Join(lock.Truncate(0), p.say("%s", kind)); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(lock, os.Getpid())
	return lock, err
}

// file returns the path of a file of this process.
func (p *program) file(suffix string) string {
	return filepath.Join(p.dir, fmt.Sprintf("%s-%d%s", p.token, p.self.PID, suffix))
}

// say appends a line to the journal of all programs.
func (p *program) say(format string, args ...any) error {
	e := entry{at: time.Now().UnixNano(), id: p.self, instance: p.instance, token: p.token, what: fmt.Sprintf(format, args...)}
	return appendLine(filepath.Join(p.dir, journalFile), e.String())
}

// appendLine writes a line with one write, so that lines of several processes do not mix.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n")
	return errors.Join(err, f.Close())
}

func (p *program) exit(code int) error {
	if err := p.say("exit %d", code); err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// burst writes numbered lines with one write, and then notes how many were written. SIGKILL can
// cut a write short, so each burst begins a line of its own.
func (p *program) burst(lines int) error {
	var b strings.Builder
	for range lines {
		p.written++
		fmt.Fprintf(&b, "\n%s-%d %d %s.", p.token, p.self.PID, p.written, strings.Repeat("x", rand.IntN(80)))
	}
	b.WriteByte('\n')
	if _, err := os.Stdout.WriteString(b.String()); err != nil {
		return err
	}
	_, err := p.acknowledged.WriteAt(fmt.Appendf(nil, "%020d", p.written), 0)
	return err
}

// requested writes a large burst if the run has asked for one. A file asks for it, because a
// signal would end a program that has just started.
func (p *program) requested() error {
	raw, err := os.ReadFile(p.file(burstSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines, err := strconv.Atoi(string(raw))
	if err != nil {
		return err
	}
	return errors.Join(p.burst(lines), os.Remove(p.file(burstSuffix)))
}

// keepChild starts the child again whenever it dies.
func (p *program) keepChild() {
	for {
		child := exec.Command(proc.Executable(), os.Args[1:]...)
		child.Env = append(os.Environ(), roleVariable+"="+roleChild)
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Run(); err == nil {
			return // the whole program ends
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answer begins to answer on the inherited socket, with the pid, and says that it is ready.
func answer() error {
	l, err := net.FileListener(os.NewFile(answerSocket, "http"))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(strconv.Itoa(os.Getpid()))) // the client may be gone
			_ = c.Close()
		}
	}()
	// While all members are dead, nobody has the socket. A notification that waits in the socket
	// when they die is lost, so it is repeated.
	go func() {
		for {
			if notifyReady() == nil {
				time.Sleep(time.Second)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return nil
}

func notifyReady() error {
	notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	_, err = notify.Write([]byte("READY=1"))
	return errors.Join(err, notify.Close())
}
