package replica

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/host/memlimit"
)

const (
	// heapsPercent is the part of a memory limit that the heaps of all members share. The
	// rest is for memory outside of Go's heap, for a member that starts, and for the page
	// cache, without which everything is slow.
	heapsPercent = 70
	// minHeapBytes is the smallest limit that a member's heap gets. With less the collector
	// would run all the time.
	minHeapBytes = 24 << 20
	// Writes are refused from tightPercent of the limit on, until less than easedPercent is
	// in use.
	tightPercent, easedPercent = 90, 80
	// plentyBytes is the share from which on several followers may start at the same time.
	plentyBytes = 1 << 30
	// relieveEvery is how often a member gives memory back while it is tight.
	relieveEvery = time.Second
	// growthPerSecond is how many bytes the members together may take per second when clients
	// begin to write. With a small limit it takes them less time to reach the limit than
	// housekeeping lets pass between two looks. So writes look too, see Memory.due.
	growthPerSecond = 256 << 20
	// minLookEvery bounds the cost of the looks.
	minLookEvery = 10 * time.Millisecond
)

// errNoMemory answers writes that are refused before the kernel would have to kill a process.
var errNoMemory = status.Error(codes.ResourceExhausted, "dynast: the memory limit is nearly reached: writes are refused until memory is free")

// Memory is the limit that all members share, and this member's share of it.
type Memory struct {
	group *memlimit.Group // nil if there is no limit, or if it cannot be read
	share atomic.Int64    // in bytes; 0 if there is no limit
	used  atomic.Uint64   // as Look last read it
	// tight is true while nearly all of the limit is in use.
	tight    atomic.Bool
	looked   atomic.Int64 // the time of the last Look, in nanoseconds of Unix time
	relieved time.Time    // only Relieve uses it
}

// newMemory reads the limit and makes this process keep to its share of it, unless the
// operator has set GOMEMLIMIT.
func newMemory(followers int, logger hclog.Logger) *Memory {
	group, err := memlimit.Read()
	if err != nil {
		logger.Debug("memory limit", "error", err)
	}
	if group == nil {
		return &Memory{}
	}
	m := &Memory{group: group}
	m.split(followers + 1)
	logger.Debug("memory limit", "bytes", group.LimitBytes, "group", group.Path, "share", m.share.Load())
	return m
}

// split sets the share of this process, one of so many members.
func (m *Memory) split(members int) {
	share := shareOf(m.group.LimitBytes, members)
	if m.share.Swap(share) != share && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(share)
	}
}

// shareOf returns how many bytes the heap of one member may take.
func shareOf(limit uint64, members int) int64 {
	return max(int64(limit/100*heapsPercent)/int64(max(members, 1)), minHeapBytes)
}

// bound limits a buffer size to the given fraction of this member's share. The size itself is
// meant for a host with enough memory.
func (m *Memory) bound(bytes, part int64) int64 {
	if m == nil || m.share.Load() == 0 {
		return bytes
	}
	return min(bytes, m.share.Load()/part)
}

// StartsAtOnce returns how many followers may start at the same time; 0 means no bound. If
// memory is scarce it is one, because a member needs most memory while it opens its copy.
func (m *Memory) StartsAtOnce() int {
	if share := m.share.Load(); share == 0 || share >= plentyBytes {
		return 0
	}
	return 1
}

// MemoryStatus describes the memory limit. It is zero if there is none.
type MemoryStatus struct {
	LimitBytes, UsedBytes uint64
	Tight                 bool
}

// Status returns the limit and how much of it was in use at the last Look.
func (m *Memory) Status() MemoryStatus {
	if m.group == nil {
		return MemoryStatus{}
	}
	return MemoryStatus{LimitBytes: m.group.LimitBytes, UsedBytes: m.used.Load(), Tight: m.tight.Load()}
}

// due reports whether the members may have taken a tenth of the limit since the last Look. That
// is the room between tightPercent and the limit.
func (m *Memory) due(now time.Time) bool {
	return m.group != nil && now.UnixNano()-m.looked.Load() >= int64(lookEvery(m.group.LimitBytes))
}

// lookEvery is how often writes look at a limit of this many bytes.
func lookEvery(limit uint64) time.Duration {
	tenth := time.Duration(float64(limit) / 10 / growthPerSecond * float64(time.Second))
	return max(tenth, minLookEvery)
}

// Look reads how much memory is in use by so many members. It reports whether tight changed.
// Only one goroutine at a time may call it.
func (m *Memory) Look(members int) (used uint64, changed bool) {
	if m.group == nil {
		return 0, false
	}
	m.looked.Store(time.Now().UnixNano())
	m.split(members)
	used, err := m.group.UsedBytes()
	if err != nil {
		return 0, false
	}
	m.used.Store(used)
	percent := used * 100 / m.group.LimitBytes
	switch tight := m.tight.Load(); {
	case !tight && percent >= tightPercent:
		m.tight.Store(true)
		return used, true
	case tight && percent < easedPercent:
		m.tight.Store(false)
		return used, true
	}
	return used, false
}

// Relieve returns garbage and freed heap to the kernel if the last Look found little memory
// left. Only housekeeping calls it, because it takes a complete garbage collection.
func (m *Memory) Relieve() {
	if m.group == nil || m.used.Load()*100/m.group.LimitBytes < easedPercent || time.Since(m.relieved) < relieveEvery {
		return
	}
	debug.FreeOSMemory()
	m.relieved = time.Now()
}

// followerOOM is added to a follower's OOM score, in thousandths of all memory, so that the
// kernel kills a follower before the leader. A follower is replaced without a pause for clients.
const followerOOM = 300

const oomFile = "/proc/self/oom_score_adj"

// oomScore is the OOM score adjustment that this process was started with.
var oomScore = func() int {
	raw, err := os.ReadFile(oomFile)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return n
}()

// PreferForOOM makes the kernel kill a follower before the leader when memory runs out. A
// leader gets back the value that it was started with; lowering to that needs no privilege.
func PreferForOOM(follower bool) error {
	n := oomScore
	if follower {
		n = min(n+followerOOM, 1000)
	}
	if err := os.WriteFile(oomFile, strconv.AppendInt(nil, int64(n), 10), 0); err != nil {
		return fmt.Errorf("set the OOM score of this process: %w", err)
	}
	return nil
}
