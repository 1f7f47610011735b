package datadir

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// FuzzStateFiles: every state file is refused, or is the same after it was written and read
// again.
func FuzzStateFiles(f *testing.F) {
	for _, s := range []string{
		`{"schema":1,"cluster_id":"5","epoch":1,"slot":1,"leader":{"address":"127.0.0.1:1","pid":1,"start_time":1},"client":"","boot_id":"b","at":"2026-01-02T03:04:05Z"}`,
		`{"schema":1,"boot_id":"b","address":"[::1]:7400","pid":7,"start_time":9,"at":"2026-01-02T03:04:05.678Z"}`,
		`{"schema":1,"id":"18446744073709551615"}`,
		`{"schema":1,"dir":"/run/dynast/0123"}`,
		`{"schema":2,"dir":"/run"}`, `{"schema":1,"dir":"run"}`, `{"schema":1,"id":"0"}`, `{}`, `[]`, "\x00",
		`{"schema":1,"cluster_id":"5","epoch":7,"abandoned":[3,6],"at":"2026-01-02T03:04:05Z"}`,
		`{"schema":1,"id":"1"}{"schema":1,"id":"2"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		accepted := 0
		for _, into := range []func() validator{
			func() validator { return &Succession{} }, func() validator { return &SlotMeta{} },
			func() validator { return &Claims{} }, func() validator { return &clusterRecord{} }, func() validator { return &runtimeRecord{} },
		} {
			v, again := into(), into()
			var err error
			fuzzing.Bounded(t, len(raw), 64, func() { err = decodeState(raw, v) })
			if err != nil {
				if err.Error() == "" {
					t.Errorf("%T: an error without a text", v)
				}
				continue
			}
			accepted++
			out, err := json.MarshalIndent(v, "", "  ")
			if err == nil {
				err = decodeState(out, again)
			}
			if err != nil || !reflect.DeepEqual(v, again) {
				t.Errorf("accepted %+v, read back %+v, %v", v, again, err)
			}
		}
		if accepted > 1 {
			t.Errorf("%q passes for %d kinds of file", raw, accepted)
		}
	})
}
