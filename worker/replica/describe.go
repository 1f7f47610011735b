package replica

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// Describe describes the store for operators. It returns false if there is none at the moment. It reads
// only counts that are kept anyway, so it takes microseconds, however large the store is. It does not
// fill in Connections.
func (r *Replica) Describe() (tree.Store, bool) {
	h := r.Hold()
	defer h.Release()
	if h.Store == nil {
		return tree.Store{}, false
	}
	keys, watchers := store.Counts()
	out := tree.Store{Keys: keys, Revision: h.Store.Revision(), UsedBytes: h.Store.Used(), FileBytes: h.Store.Size(),
		QuotaBytes: h.Store.QuotaBytes(), Alarms: []string{}, Watchers: int(watchers)}
	if free, err := proc.FreeBytes(r.Settings.Start.DataDir); err == nil {
		out.DiskFreeBytes = free
	}
	for _, a := range h.Store.Alarms().Get(pb.AlarmType_NONE) {
		if name := a.Alarm.String(); !slices.Contains(out.Alarms, name) {
			out.Alarms = append(out.Alarms, name)
		}
	}
	return out, true
}
