package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/host/datadir"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/worker/state"
)

// A damaged record must not make init remove the engine's data.
func TestInitKeepsTheEngineOfADamagedRecord(t *testing.T) {
	dir, err := datadir.Open(filepath.Join(t.TempDir(), "data"), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir.Engine(), 0o700); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir.Engine(), "data")
	for path, content := range map[string]string{data: "keys", filepath.Join(dir.Hosts(), "host.json"): ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shared := &state.Shared{State: &state.State{}, Dir: dir}
	shared.Leading.Store(true)
	h := &hosts{Shared: shared, programs: &programs{Shared: shared}}
	_, err = h.init(t.Context(), api.InitRequest{Name: "one", Address: "192.0.2.1:2380"})
	if err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("init: %v, want an error that says that the record cannot be read", err)
	}
	if content, err := os.ReadFile(data); err != nil || string(content) != "keys" {
		t.Errorf("the engine's data: %q, %v", content, err)
	}
}
