package health

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary act as a program under test.
const helperEnv = "DYNAST_HEALTH_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		if err := help(mode); err != nil {
			fmt.Fprintln(os.Stderr, "helper failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// help is what a program under test does.
func help(mode string) error {
	name, arg, _ := strings.Cut(mode, " ")
	switch name {
	case "notify":
		return helpNotify(arg)
	case "barrier":
		return helpBarrier()
	}
	return fmt.Errorf("no helper %q", name)
}

func dialNotify() (*net.UnixConn, error) {
	return net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
}

// sendFiles sends a datagram with descriptors. WriteMsgUnix refuses a connected socket.
func sendFiles(c *net.UnixConn, text string, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte(text), rights, nil, 0)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// helpNotify sends one datagram.
func helpNotify(text string) error {
	c, err := dialNotify()
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return err
}

// helpBarrier does what sd_notify_barrier(3) does, after a message, and prints "passed".
func helpBarrier() error {
	if err := helpNotify("READY=1"); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c, err := dialNotify()
	if err != nil {
		return err
	}
	if err := sendFiles(c, "BARRIER=1", int(w.Fd())); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	fmt.Println("passed")
	return nil
}
