package member

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// AgainEnv marks a leader that has executed its own program again, to begin with another store. It has
// the shared listening sockets and their descriptors, as NAME=FD,NAME=FD.
const AgainEnv = "DYNAST_WORKER_AGAIN"

// PassOn prepares sockets for the program that this process executes next, and returns the value of
// AgainEnv.
func PassOn(sockets Listeners) (string, error) {
	var words []string
	for _, l := range sockets {
		// A duplicate has no close-on-exec flag.
		raw, err := l.File.SyscallConn()
		if err != nil {
			return "", fmt.Errorf("pass on the socket %s: %w", l.Name, err)
		}
		var fd int
		var dupErr error
		if err := raw.Control(func(s uintptr) { fd, dupErr = unix.Dup(int(s)) }); err != nil || dupErr != nil {
			return "", fmt.Errorf("pass on the socket %s: %w", l.Name, errors.Join(err, dupErr))
		}
		words = append(words, l.Name+"="+strconv.Itoa(fd))
	}
	return strings.Join(words, ","), nil
}

// PassedOn takes over the sockets in AgainEnv and removes the variable. again is false if it is not
// set.
func PassedOn() (sockets Listeners, again bool, err error) {
	text, again := os.LookupEnv(AgainEnv)
	if !again {
		return nil, false, nil
	}
	if err := os.Unsetenv(AgainEnv); err != nil {
		return nil, true, err
	}
	for word := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(word, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || name == "" || sockets.File(name) != nil {
			return nil, true, fmt.Errorf("%s: %q is no list of sockets", AgainEnv, text)
		}
		syscall.CloseOnExec(fd)
		sockets = append(sockets, Listener{Name: name, File: os.NewFile(uintptr(fd), name)})
	}
	return sockets, true, nil
}
