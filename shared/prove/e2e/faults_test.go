package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// seeded returns the random source of a test, and prints how to repeat its choices.
func seeded(t *testing.T) (uint64, *rand.Rand) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("DYNAST_E2E_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d; DYNAST_E2E_SEED repeats the choices, DYNAST_E2E_ROUNDS makes more of them", seed)
	return seed, rand.New(rand.NewPCG(seed, 0))
}

// rounds returns how often a test breaks something: a few times in a normal run, and any number
// of times in a soak.
func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("DYNAST_E2E_ROUNDS")); err == nil {
		return n
	}
	return usual
}

// processes returns the living processes that own a slot of the data directory.
func (c *cluster) processes() []proc.Identity {
	dir, err := datadir.OpenForReading(c.dir)
	if err != nil {
		return nil
	}
	metas, err := dir.Metas()
	if err != nil {
		c.t.Fatal(err)
	}
	var alive []proc.Identity
	for _, meta := range metas {
		id := proc.Identity{PID: meta.PID, StartTime: meta.StartTime}
		if same(id) && !zombie(id.PID) {
			c.note(id)
			alive = append(alive, id)
		}
	}
	return alive
}

func same(id proc.Identity) bool {
	now, err := proc.Identify(id.PID)
	return err == nil && now == id
}

// identity returns the identity of a member's process, or zero if it is gone.
func identity(m tree.Member) proc.Identity {
	id, err := proc.Identify(m.PID)
	if err != nil {
		return proc.Identity{}
	}
	return id
}

// signalSame sends a signal only if the process is still the same.
func signalSame(id proc.Identity, sig syscall.Signal) {
	if id.PID > 1 && same(id) {
		_ = syscall.Kill(id.PID, sig)
	}
}

// kill kills a member and waits until the others know of its death.
func (c *cluster) kill(m tree.Member) {
	c.t.Helper()
	c.signal(m, syscall.SIGKILL)
	c.wait("the death is known", func(t *tree.Tree) bool {
		now, ok := find(t, m.Address)
		return !ok || now.PID != m.PID
	})
}
