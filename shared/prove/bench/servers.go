package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// Servers is the cost of all server processes together during a load, and the memory that they
// use at its end.
type Servers struct {
	PIDs []int `json:"pids"`
	// Gone lists the processes that ended during the load. Their cost is not counted, and neither
	// is that of their replacements.
	Gone       []int   `json:"gone_pids,omitempty"`
	CPUSeconds float64 `json:"cpu_seconds"`
	// CPUPerOperation is in microseconds to keep the number readable.
	CPUPerOperation float64 `json:"cpu_us_per_operation"`
	CPUPercent      float64 `json:"cpu_percent_of_a_core"`
	// DiskWriteBytes is the amount that was written to the disk or waits in the page cache.
	DiskWriteBytes uint64 `json:"disk_write_bytes"`
	// RSSBytes counts a shared page once for each process, PSSBytes counts it once in total.
	// AnonBytes leaves out the pages of files.
	RSSBytes  uint64 `json:"rss_bytes"`
	PSSBytes  uint64 `json:"pss_bytes"`
	AnonBytes uint64 `json:"anonymous_bytes"`
}

func (s *Servers) perOperation(n int64) {
	if s != nil && n > 0 && len(s.Gone) == 0 {
		s.CPUPerOperation = s.CPUSeconds * 1e6 / float64(n)
	}
}

func (s *Servers) render(w io.Writer) {
	if len(s.Gone) > 0 {
		fmt.Fprintf(w, "%d of %d server processes ended during the measurement: they and their replacements are not counted\n", len(s.Gone), len(s.Gone)+len(s.PIDs))
	}
	if len(s.PIDs) == 0 {
		return
	}
	fmt.Fprintf(w, "%d server processes: %.2f s of CPU time (%.1f %% of a core)", len(s.PIDs), s.CPUSeconds, s.CPUPercent)
	if s.CPUPerOperation > 0 {
		fmt.Fprintf(w, ", %.1f us per operation", s.CPUPerOperation)
	}
	const mib = 1 << 20
	fmt.Fprintf(w, "\n  %.1f MiB written to disk; resident memory %.1f MiB, %.1f MiB with shared pages counted once, %.1f MiB without pages of files\n",
		float64(s.DiskWriteBytes)/mib, float64(s.RSSBytes)/mib, float64(s.PSSBytes)/mib, float64(s.AnonBytes)/mib)
}

// reading is the state of all counters at one moment.
type reading struct {
	at   time.Time
	each map[int]Servers // by pid
	gone []int
}

// readServers reads the counters of all processes. It fails if one of the processes does not
// exist.
func readServers(pids []int) (*reading, error) {
	if len(pids) == 0 {
		return nil, nil
	}
	r := &reading{each: map[int]Servers{}}
	for _, pid := range pids {
		s, err := readServer(pid)
		if err != nil {
			return nil, err
		}
		r.each[pid] = s
	}
	r.at = time.Now()
	return r, nil
}

// again reads the counters of the processes that still exist.
func (r *reading) again() (*reading, error) {
	if r == nil {
		return nil, nil
	}
	now := &reading{each: map[int]Servers{}, gone: slices.Clone(r.gone)}
	for pid := range r.each {
		s, err := readServer(pid)
		switch {
		case err == nil:
			now.each[pid] = s
		case errors.Is(err, proc.ErrGone), errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
			now.gone = append(now.gone, pid)
		default:
			return nil, err
		}
	}
	slices.Sort(now.gone)
	now.at = time.Now()
	return now, nil
}

func readServer(pid int) (s Servers, err error) {
	u, err := proc.ReadUsage(pid)
	if err != nil {
		return s, err
	}
	if u.State == 'Z' || u.State == 'X' {
		return s, fmt.Errorf("pid %d: %w", pid, proc.ErrGone)
	}
	io, err := procValues(pid, "io")
	if err != nil {
		return s, err
	}
	mem, err := procValues(pid, "smaps_rollup")
	if err != nil {
		return s, err
	}
	return Servers{CPUSeconds: u.CPU.Seconds(), RSSBytes: u.RSSBytes, DiskWriteBytes: io["write_bytes"],
		PSSBytes: mem["Pss"] << 10, AnonBytes: mem["Anonymous"] << 10}, nil
}

// procValues reads a file with lines of the form "name: number" from the /proc directory of a
// process.
func procValues(pid int, name string) (map[string]uint64, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("read the usage of pid %d: %w (run this as the user of that process, or as root)", pid, err)
	}
	defer f.Close()
	out := map[string]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
			out[key] = n
		}
	}
	return out, nil
}

// since returns the cost since an earlier reading, and the memory in use now. It counts only the
// processes that still exist.
func (r *reading) since(before *reading) *Servers {
	if r == nil || before == nil {
		return nil
	}
	sum := Servers{PIDs: slices.Sorted(maps.Keys(r.each)), Gone: r.gone}
	for pid, now := range r.each {
		then := before.each[pid]
		sum.CPUSeconds += now.CPUSeconds - then.CPUSeconds
		sum.DiskWriteBytes += now.DiskWriteBytes - then.DiskWriteBytes
		sum.RSSBytes += now.RSSBytes
		sum.PSSBytes += now.PSSBytes
		sum.AnonBytes += now.AnonBytes
	}
	sum.CPUPercent = sum.CPUSeconds / r.at.Sub(before.at).Seconds() * 100
	return &sum
}
