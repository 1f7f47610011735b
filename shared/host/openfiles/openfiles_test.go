package openfiles

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// child is set in the process that raises its limit and starts a program.
const child = "OPENFILES_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		limit, err := Raise()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		out, err := exec.Command("sh", "-c", "ulimit -Sn").Output()
		fmt.Printf("%d %s %v\n", limit, strings.TrimSpace(string(out)), err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var most = Shares{Strangers: 128, Commands: 256, Others: 32, Browsers: 256, Handoffs: 64}

func TestNeeded(t *testing.T) {
	for followers, want := range map[int]int{0: 88, 1: 104, 2: 120, 32: 600} {
		if got := Needed(followers); got != want {
			t.Errorf("%d followers need %d, want %d", followers, got, want)
		}
		if err := Check(want, followers, Services{}); err != nil {
			t.Errorf("a limit of %d for %d followers: %v", want, followers, err)
		}
		err := Check(want-1, followers, Services{})
		var few *TooFew
		if !errors.As(err, &few) || few.Limit != want-1 || few.Followers != followers {
			t.Errorf("a limit of %d for %d followers: %v", want-1, followers, err)
			continue
		}
		for _, part := range []string{fmt.Sprint(want - 1), fmt.Sprint(want), "ulimit -n", "LimitNOFILE=", "--ulimit nofile"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %q", err, part)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is more than one line", err)
		}
	}
}

// TestServicesNeed: the programs of services need descriptors in addition, and the error says how
// many.
func TestServicesNeed(t *testing.T) {
	if n := (Services{}).Needed(); n != 0 {
		t.Errorf("without services %d are needed for them", n)
	}
	s := Services{Instances: 100, Checked: 10, Sockets: 3}
	if n := s.Needed(); n != 32+400+40+3 {
		t.Errorf("%+v need %d", s, n)
	}
	enough := Needed(2) + s.Needed()
	if err := Check(enough, 2, s); err != nil {
		t.Error(err)
	}
	err := Check(enough-1, 2, s)
	if err == nil || !strings.Contains(err.Error(), "475 for 100 instances of services") || !strings.Contains(err.Error(), fmt.Sprint(enough)) {
		t.Errorf("%v", err)
	}
}

// TestSharesStayWithinTheLimit: with every sufficient limit, all shares and the member's own
// needs together stay within the limit, and no share is below its minimum.
func TestSharesStayWithinTheLimit(t *testing.T) {
	const mostFollowers = 32
	for followers := 0; followers <= mostFollowers; followers++ {
		for limit := Needed(followers); limit < 20_000; limit += 7 {
			s := Split(limit, followers, mostFollowers, most)
			sum := memberFiles + followerFiles*followers + s.Clients + s.Strangers + s.Commands + s.Others + s.Browsers + s.Handoffs
			if sum > limit {
				t.Fatalf("limit %d, %d followers: %d descriptors are given away: %+v", limit, followers, sum, s)
			}
			if s.Clients < leastClients || s.Strangers < leastStrangers || s.Commands < leastCommands ||
				s.Others < leastOthers || s.Browsers < leastBrowsers || s.Handoffs < leastHandoffs {
				t.Fatalf("limit %d, %d followers: a listener has less than its least: %+v", limit, followers, s)
			}
			other := Split(limit, 0, mostFollowers, most)
			if other.Clients = s.Clients; other != s {
				t.Fatalf("limit %d: %+v with %d followers, %+v with none", limit, s, followers, other)
			}
		}
	}
	plenty := Split(65536, 2, mostFollowers, most)
	if clients := plenty.Clients; clients < 60_000 {
		t.Errorf("%d connections of clients with a limit of 65536", clients)
	}
	if plenty.Clients = 0; plenty != most {
		t.Errorf("with a limit of 65536 the others get %+v, want %+v", plenty, most)
	}
}

// TestRaise: afterwards this process has the whole hard limit, and so has a program that it
// starts.
func TestRaise(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Max < 200 {
		t.Skipf("the hard limit is %d (%v)", l.Max, err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -Sn 100 && ulimit -Hn 200 && exec "$0"`, self)
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "200 200 <nil>" {
		t.Errorf("limit, and that of a child: %q, %v; want 200, 200", out, err)
	}
}
