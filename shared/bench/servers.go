package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/proc"
)

// Servers is what all server processes spent together during a load, and what
// they hold in the end.
type Servers struct {
	PIDs       []int   `json:"pids"`
	CPUSeconds float64 `json:"cpu_seconds"`
	// CPUPerOperation is in microseconds, so that it can be read.
	CPUPerOperation float64 `json:"cpu_us_per_operation"`
	CPUPercent      float64 `json:"cpu_percent_of_a_core"`
	// DiskWriteBytes were handed to the disk or are waiting to be.
	DiskWriteBytes uint64 `json:"disk_write_bytes"`
	// RSSBytes counts memory that processes share once for each of them,
	// PSSBytes once for all, AnonBytes only what is not a file.
	RSSBytes  uint64 `json:"rss_bytes"`
	PSSBytes  uint64 `json:"pss_bytes"`
	AnonBytes uint64 `json:"anonymous_bytes"`
}

func (s *Servers) perOperation(n int64) {
	if s != nil && n > 0 {
		s.CPUPerOperation = s.CPUSeconds * 1e6 / float64(n)
	}
}

func (s *Servers) render(w io.Writer) {
	fmt.Fprintf(w, "%d server processes: %.2f s of processor time (%.1f %% of a core)", len(s.PIDs), s.CPUSeconds, s.CPUPercent)
	if s.CPUPerOperation > 0 {
		fmt.Fprintf(w, ", %.1f us for each operation", s.CPUPerOperation)
	}
	const mib = 1 << 20
	fmt.Fprintf(w, "\n  %.1f MiB written to disk; resident %.1f MiB, with shared pages counted once %.1f MiB, without files %.1f MiB\n",
		float64(s.DiskWriteBytes)/mib, float64(s.RSSBytes)/mib, float64(s.PSSBytes)/mib, float64(s.AnonBytes)/mib)
}

// reading is the state of the counters at one instant.
type reading struct {
	at    time.Time
	total Servers
}

func readServers(pids []int) (*reading, error) {
	if len(pids) == 0 {
		return nil, nil
	}
	r := &reading{total: Servers{PIDs: pids}}
	for _, pid := range pids {
		u, err := proc.ReadUsage(pid)
		if err != nil {
			return nil, err
		}
		r.total.CPUSeconds += u.CPU.Seconds()
		r.total.RSSBytes += u.RSSBytes
		io, err := procValues(pid, "io")
		if err != nil {
			return nil, err
		}
		r.total.DiskWriteBytes += io["write_bytes"]
		mem, err := procValues(pid, "smaps_rollup")
		if err != nil {
			return nil, err
		}
		r.total.PSSBytes += mem["Pss"] << 10
		r.total.AnonBytes += mem["Anonymous"] << 10
	}
	r.at = time.Now()
	return r, nil
}

// procValues reads a file of lines "name: number" in a process's /proc directory.
func procValues(pid int, name string) (map[string]uint64, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("what pid %d spends: %w (only its user and root may see that)", pid, err)
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

// since returns what was spent since an earlier reading, and what is held now.
func (r *reading) since(before *reading) *Servers {
	if r == nil || before == nil {
		return nil
	}
	s := r.total
	s.CPUSeconds -= before.total.CPUSeconds
	s.DiskWriteBytes -= before.total.DiskWriteBytes
	s.CPUPercent = s.CPUSeconds / r.at.Sub(before.at).Seconds() * 100
	return &s
}
