package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// roleSpeaker is a program that sends what a test writes into a file in the directory that
// speakerDir in its environment names.
const (
	roleSpeaker = "speaker"
	speakerDir  = "DYNAST_TEST_SPEAKER_DIR"
)

// beSpeaker has a child, writes the pid of it into the file child of the directory in speakerDir, and
// sends the content of each file say to its supervisor. It removes the file then. After a content
// with EXIT it ends, and its child runs on.
func beSpeaker() error {
	dir := os.Getenv(speakerDir)
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "child"), fmt.Append(nil, child.Process.Pid), 0o600); err != nil {
		return err
	}
	file := filepath.Join(dir, "say")
	for ; ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			return err
		}
		if _, err := notify.Write(text); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil || strings.Contains(string(text), "EXIT") {
			return err
		}
	}
}

// speaker is a service whose program says what the test wants.
type speaker struct {
	*cluster
	dir string
}

func newSpeaker(t *testing.T) speaker {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := newCluster(t, withServices(t, fmt.Sprintf(`service "web" {
  command = [%q]
  env     = { %s = %q, %s = %q }
  ready { notify = true }
  stop { timeout = "1s" }
}
`, self, serviceProcess, roleSpeaker, speakerDir, dir)))
	c.up()
	c.awaitState("running", "web/1")
	return speaker{c, dir}
}

// say lets the program send a message, and waits until it has been sent.
func (s speaker) say(text string) {
	s.t.Helper()
	temporary, file := filepath.Join(s.dir, "text"), filepath.Join(s.dir, "say")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(temporary, file); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the message is sent: "+text, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) })
}

// child returns the pid of the program's child.
func (s speaker) child() (pid int) {
	s.t.Helper()
	eventually(s.t, "the program has a child", func() bool {
		b, err := os.ReadFile(filepath.Join(s.dir, "child"))
		n, _ := fmt.Sscan(string(b), &pid)
		return err == nil && n == 1
	})
	return pid
}

// TestServiceSaysThatItReloadsAndStops: RELOADING=1 and STOPPING=1 change the state, and a status
// outlives the leader.
func TestServiceSaysThatItReloadsAndStops(t *testing.T) {
	s := newSpeaker(t)
	s.say("READY=1\nSTATUS=serving")
	s.awaitState("ready", "web/1")
	pid := s.instance("web/1").PID
	s.kill(leaderOf(s.full()))
	s.awaitState("ready", "web/1")
	if i := s.instance("web/1"); i.Status != "serving" || i.PID != pid {
		t.Errorf("after a takeover, the status is %q and the pid %d, want serving and %d", i.Status, i.PID, pid)
	}
	s.say("RELOADING=1\nSTATUS=reads its files")
	s.awaitState("running", "web/1")
	if i := s.instance("web/1"); i.Ready || !strings.Contains(i.Reason, "reloads") {
		t.Errorf("while it reloads: ready %t, reason %q", i.Ready, i.Reason)
	}
	s.say("READY=1")
	s.awaitState("ready", "web/1")
	s.say("STOPPING=1")
	s.awaitState("stopping", "web/1")
	if i := s.instance("web/1"); i.Ready || i.PID != pid {
		t.Errorf("while it stops: ready %t, pid %d, want %d", i.Ready, i.PID, pid)
	}
	// It does not end, so that it is killed, and it starts again.
	eventually(t, "another process runs", func() bool { i := s.instance("web/1"); return i.State == "running" && i.PID != pid })
}

// TestMainProcessMovesWithoutALeader: MAINPID= that is sent while no leader reads waits in the
// socket. The next leader takes it into account, even if the old main process is dead.
func TestMainProcessMovesWithoutALeader(t *testing.T) {
	for _, exit := range []string{"", "\nEXIT=1"} {
		t.Run(fmt.Sprintf("exits %t", exit != ""), func(t *testing.T) {
			s := newSpeaker(t)
			s.say("READY=1")
			s.awaitState("ready", "web/1")
			parent, child := s.instance("web/1").PID, s.child()
			id, err := proc.Identify(parent)
			if err != nil {
				t.Fatal(err)
			}
			leader := leaderOf(s.full())
			s.signal(leader, syscall.SIGSTOP)
			s.say(fmt.Sprintf("MAINPID=%d%s", child, exit))
			if exit != "" {
				eventually(t, "the old main process is dead", func() bool { now, err := proc.Identify(parent); return err != nil || now != id })
			}
			s.kill(leader)
			eventually(t, "the child is the main process", func() bool { return s.instance("web/1").PID == child })
			s.awaitState("ready", "web/1")
			if i := s.instance("web/1"); i.Restarts != 0 {
				t.Errorf("it was restarted %d times", i.Restarts)
			}
		})
	}
}

// TestRollingRestartEndsEarly: a rolling restart to a program that does not work ends, says why, and
// leaves the instances as they are.
func TestRollingRestartEndsEarly(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	c := newCluster(t, withServices(t, fmt.Sprintf(`service "web" {
  script    = "if test -e %s; then echo broken; exit 3; fi; exec sleep infinity"
  instances = 2
  ready {
    exec     = ["test", "!", "-e", %q]
    interval = "100ms"
  }
}
`, broken, broken)))
	c.up()
	c.awaitState("ready", "web/1", "web/2")
	before := []int{c.instance("web/1").PID, c.instance("web/2").PID}
	if code, out := c.run("restart", "--rolling", "web/1", "--config", c.config); code != 1 || !strings.Contains(out, "about all instances") {
		t.Errorf("a rolling restart of one instance: exit code %d, %s", code, out)
	}
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := c.run("restart", "--rolling", "web", "--config", c.config)
	if code != 1 || !strings.Contains(out, "web/3 did not become ready: exit status 3") {
		t.Errorf("exit code %d, %s", code, out)
	}
	for n, id := range []string{"web/1", "web/2"} {
		if pid := c.instance(id).PID; pid != before[n] {
			t.Errorf("%s had pid %d, and now it has %d", id, before[n], pid)
		}
	}
	if out := c.order("events", "--since", "1m"); !strings.Contains(out, "service_rolling_restart_aborted") {
		t.Errorf("there is no event:\n%s", out)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	c.order("restart", "--rolling", "web")
	c.awaitState("ready", "web/1", "web/2")
}
