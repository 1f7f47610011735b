package worker

import (
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// reaperPause bounds the cost of a reaper that dies again and again.
const reaperPause = time.Second

// keepReaper keeps a reaper running, so that freeing this process's memory does not delay the
// next leader when this process dies, however much memory it uses.
func (m *Member) keepReaper() {
	for {
		reaper, err := proc.StartReaper()
		if err != nil {
			m.Log.Warn("cannot start a reaper: a takeover from this leader takes longer the more memory it uses", "error", err)
			return
		}
		select {
		case <-reaper.Done():
			m.Log.Warn("the reaper of this process died, starting a new one", "pid", reaper.Identity().PID)
			if err := proc.Bury(reaper); err != nil {
				m.Log.Warn("cannot reap the reaper", "error", err)
			}
		case <-m.Ended():
			_ = reaper.Close()
			return
		}
		select {
		case <-time.After(reaperPause):
		case <-m.Ended():
			return
		}
	}
}
