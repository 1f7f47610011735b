package proc

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// helperEnv makes the test binary act as a process under test.
const helperEnv = "DYNAST_PROC_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		name, arg, _ := strings.Cut(mode, " ")
		if err := helpers()[name](arg); err != nil {
			fmt.Println("helper failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// helpers are the roles of a process under test. They print "ready" and end when their standard
// input ends, so none outlives the test.
func helpers() map[string]func(string) error {
	return map[string]func(string) error{
		"wait": func(string) error { return untilEOF("ready") },
		"sleep": func(string) error {
			for {
				_ = unix.Pause() // ends with every signal
			}
		},
		"open": func(path string) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			return untilEOF("ready")
		},
		"title": func(role string) error { SetTitle(role); return untilEOF("ready") },
		"exit": func(code string) error {
			n, err := strconv.Atoi(code)
			if err == nil {
				os.Exit(n)
			}
			return err
		},
		"lock": func(path string) error {
			if _, err := TryLock(path); err != nil {
				return err
			}
			return untilEOF("ready")
		},
		"orphan":  helperOrphan,
		"store":   helperStore,
		"reaped":  helperReaped,
		"accept":  helperAccept,
		"respawn": helperRespawn,
		"slack":   helperSlack,
		"chosen":  helperChosen,
		"slackof": func(string) error { fmt.Println(slack()); return nil },
	}
}

func untilEOF(say string) error {
	fmt.Println(say)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// helperOrphan leaves a child behind and prints the child's pid.
func helperOrphan(string) error {
	cmd := exec.Command(Executable())
	cmd.Env = append(os.Environ(), helperEnv+"=wait")
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	return nil
}

// helperAccept receives a listener through descriptor 3 and answers one connection.
func helperAccept(string) error {
	c, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	payload, files, err := ReceiveFiles(c.(*net.UnixConn), 1<<20)
	if err != nil {
		return err
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return err
	}
	client, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(client, "%d %d", os.Getpid(), len(payload))
	return err
}

// helperRespawn waits for a line and then runs itself again.
func helperRespawn(string) error {
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	cmd := exec.Command(Executable())
	cmd.Env = append(os.Environ(), helperEnv+"=wait")
	out, err := cmd.Output()
	fmt.Printf("child said %q\n", out)
	return err
}

// helper is a running process under test.
type helper struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(t testing.TB, mode string, files ...*os.File) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, exe, mode, files...)
}

func startProgram(t testing.TB, exe, mode string, files ...*os.File) *helper {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	in, out := testkit.StartPiped(t, cmd)
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &helper{Cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (h *helper) line(t testing.TB) string {
	t.Helper()
	s, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read from helper: %v", err)
	}
	return strings.TrimSpace(s)
}

// ready starts a helper and waits until it is ready.
func ready(t testing.TB, mode string) *helper {
	t.Helper()
	h := startHelper(t, mode)
	if got := h.line(t); got != "ready" {
		t.Fatalf("helper %q said %q", mode, got)
	}
	return h
}

func openPID(t testing.TB, pid int) *Process {
	t.Helper()
	id, err := Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}
