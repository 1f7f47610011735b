package launch

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArgumentsAreParsedBack(t *testing.T) {
	for _, s := range []Settings{
		{Umask: -1, ErrorFD: 3},
		{
			Umask: 0, ErrorFD: 7, Dir: "/a=b,c --", NoNewPrivs: true, ListenPID: true,
			Limits:           []Limit{{Resource: 7, Value: 1<<64 - 1}, {Resource: 6, Value: 0}},
			Credential:       &syscall.Credential{Uid: 1<<32 - 1, Gid: 2, Groups: []uint32{3, 4}},
			DropCapabilities: []int{0, 40}, DefaultSignals: []syscall.Signal{1, 2},
		},
	} {
		args := Arguments(s, "/path", []string{"--", "umask=1", ""})
		if args[0] != name {
			t.Fatalf("first argument %q", args[0])
		}
		got, path, argv, err := parse(args[1:])
		if err != nil || !reflect.DeepEqual(got, s) || path != "/path" || strings.Join(argv, "|") != "--|umask=1|" {
			t.Errorf("%q: %+v, %q, %q, %v", args, got, path, argv, err)
		}
	}
	for _, args := range []string{"", "--", "umask=1", "umask=x -- /p", "umask= -- /p", "other=1 -- /p", "limit=1 -- /p", "limit=1,-1 -- /p"} {
		if s, _, _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%q: %+v", args, s)
		}
	}
}

func TestErrorsPassThePipe(t *testing.T) {
	f := &Failure{Op: "change to directory /a b", Err: syscall.ENOENT}
	err := ParseError([]byte(f.encode()))
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != f.Error() {
		t.Errorf("%v", err)
	}
	f = &Failure{Op: "launch", Err: errors.New("no program")}
	if err := ParseError([]byte(f.encode())); err == nil || err.Error() != "launch: no program" {
		t.Errorf("%v", err)
	}
	if err := ParseError(nil); err != nil {
		t.Errorf("no message: %v", err)
	}
	if err := ParseError([]byte("x")); err == nil {
		t.Error("an unreadable message is no error")
	}
}
