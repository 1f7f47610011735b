package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// exitSeen is what "ps" says about the last exit of an instance.
type exitSeen struct {
	code   int
	signal string
}

// TestExitStatusOverATakeover kills the leader at the moment when programs end, and checks that the
// next leader reports how they ended. Programs end with a status or by a signal, shortly before or
// after the death of the leader. One has a launcher.
func TestExitStatusOverATakeover(t *testing.T) {
	_, rng := seeded(t)
	dir := t.TempDir()
	const instances = 2
	// The program ends when the test writes its exit status.
	block := func(name, more string) string {
		return fmt.Sprintf(`
service %q {
  instances = %d
  script    = "read code < %s/$SERVICE-$INSTANCE; exit $code"
  %s
  backoff {
    first = "1ms"
    max   = "1ms"
    limit = 0
  }
}
`, name, instances, dir, more)
	}
	c := newCluster(t, withServices(t, block("plain", "")+block("launched", "umask = \"022\"")))
	type program struct {
		id   string
		fifo *os.File
	}
	var programs []program
	var ids []string
	for _, name := range []string{"plain", "launched"} {
		for n := 1; n <= instances; n++ {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d", name, n))
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			fifo, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer fifo.Close()
			id := fmt.Sprintf("%s/%d", name, n)
			programs, ids = append(programs, program{id, fifo}), append(ids, id)
		}
	}
	c.up()
	c.awaitState("ready", ids...)
	pause := func() { time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond)))) } // the moment of a fault, not a wait
	for round := range rounds(10) {
		leader := leaderOf(c.full())
		type end struct {
			pid int
			exitSeen
		}
		var ends []end
		first := rng.IntN(2) == 0
		if first {
			c.signal(leader, syscall.SIGKILL)
			pause()
		}
		for _, p := range programs {
			e := end{c.processesOf(p.id)[0], exitSeen{code: 1 + rng.IntN(250)}}
			if rng.IntN(3) == 0 {
				e.code, e.signal = -1, "SIGKILL"
				if err := syscall.Kill(e.pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			} else if _, err := fmt.Fprintln(p.fifo, e.code); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, e)
		}
		if !first {
			pause()
		}
		c.kill(leader)
		for k, p := range programs {
			var got *exitSeen
			eventually(t, p.id+" runs again", func() bool {
				i := c.instance(p.id)
				if i.LastExit != nil {
					got = &exitSeen{i.LastExit.Code, i.LastExit.Signal}
				}
				return i.State == "ready" && i.PID != ends[k].pid
			})
			if want := ends[k].exitSeen; got == nil || *got != want {
				t.Errorf("round %d, the leader first: %t: %s ended with %+v, but ps says %+v", round, first, p.id, want, got)
			}
		}
	}
}
