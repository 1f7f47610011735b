package e2e

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
)

// The programs of TestServicesChaos. The value of serviceProcess says which one a process is.
const (
	roleBurst    = "burst"    // writes numbered lines, and has a child that does so too
	roleChild    = "child"    // the child
	roleAnswer   = "answer"   // answers on an inherited socket, and notifies
	roleStubborn = "stubborn" // ignores SIGTERM
	roleOnce     = "once"     // ends by itself with status 0
	roleCoded    = "coded"    // ends by itself with a random status
	roleCalm     = "calm"     // only writes; nobody touches it
)

// chaosDir in the environment names the directory in which the programs leave their traces.
const chaosDir = "DYNAST_TEST_SERVICE_DIR"

// chaosProgram is the running program.
type chaosProgram struct {
	dir, instance, token string
	written              uint64 // lines
	acknowledged         *os.File
}

// beChaosProgram is the whole life of a program of TestServicesChaos.
func beChaosProgram(role string) error {
	p := chaosProgram{
		dir: os.Getenv(chaosDir), instance: os.Getenv("SERVICE") + "/" + os.Getenv("INSTANCE"),
		token: os.Getenv("DYNAST_INSTANCE_TOKEN")[:8],
	}
	kind := "start"
	own := strings.ReplaceAll(p.instance, "/", "-")
	if role == roleChild {
		kind, own = "child", own+"-child"
	}
	// Two processes of one instance cannot both have this lock.
	lock, err := os.OpenFile(filepath.Join(p.dir, own+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		other, _ := io.ReadAll(lock)
		return p.say("DOUBLE %s beside %s", kind, strings.TrimSpace(string(other)))
	}
	if err := errors.Join(lock.Truncate(0), p.say("%s", kind)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(lock, os.Getpid()); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	if role == roleStubborn {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(stop, syscall.SIGTERM)
	}
	if p.acknowledged, err = os.Create(filepath.Join(p.dir, fmt.Sprintf("%s-%d.lines", p.token, os.Getpid()))); err != nil {
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
		if err := p.burst(); err != nil {
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

// say appends a line to the journal of all programs.
func (p *chaosProgram) say(format string, args ...any) error {
	f, err := os.OpenFile(filepath.Join(p.dir, "journal"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%d %d %s %s %s\n", time.Now().UnixNano(), os.Getpid(), p.instance, p.token, fmt.Sprintf(format, args...))
	return err
}

func (p *chaosProgram) exit(code int) error {
	if err := p.say("exit %d", code); err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// burst writes some numbered lines with one write, and then notes how many were written. SIGKILL
// can cut a write short, so each burst begins a line of its own.
func (p *chaosProgram) burst() error {
	var b strings.Builder
	for range 5 + rand.IntN(10) {
		p.written++
		fmt.Fprintf(&b, "\n%s-%d %d %s.", p.token, os.Getpid(), p.written, strings.Repeat("x", rand.IntN(80)))
	}
	b.WriteByte('\n')
	if _, err := os.Stdout.WriteString(b.String()); err != nil {
		return err
	}
	_, err := p.acknowledged.WriteAt(fmt.Appendf(nil, "%020d", p.written), 0)
	return err
}

// keepChild starts the child again whenever it dies.
func (p *chaosProgram) keepChild() {
	for {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), serviceProcess+"="+roleChild)
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Run(); err == nil {
			return // the whole program ends
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answer begins to answer on the first inherited socket, with the pid, and says that it is ready.
func answer() error {
	l, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(strconv.Itoa(os.Getpid())))
			_ = c.Close()
		}
	}()
	// While all members are dead, nobody has the socket.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err == nil {
			_, err = notify.Write([]byte("READY=1"))
			_ = notify.Close()
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
