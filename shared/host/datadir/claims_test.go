package datadir

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestClaims(t *testing.T) {
	d, err := Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadClaims(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a file: %v", err)
	}
	if err := d.WriteClaims(Claims{ClusterID: 7, Epoch: 9, Abandoned: []uint64{4, 8}}); err != nil {
		t.Fatal(err)
	}
	c, err := d.ReadClaims()
	if err != nil || c.Epoch != 9 || c.ClusterID != 7 || !slices.Equal(c.Abandoned, []uint64{4, 8}) {
		t.Fatalf("%+v, %v", c, err)
	}
	for text, wrong := range map[string]Claims{"no epoch": {}, "abandoned": {Epoch: 4, Abandoned: []uint64{4}}} {
		if err := d.WriteClaims(wrong); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	if err := os.WriteFile(d.claimsPath(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadClaims(); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("damaged: %v", err)
	}
}

// The list of abandoned epochs is bounded, so that the file stays readable.
func TestFullClaimsFit(t *testing.T) {
	d, err := Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	c := Claims{Epoch: 1<<64 - 1}
	for i := range uint64(256) {
		c.Abandoned = append(c.Abandoned, 1<<63+i)
	}
	if err := d.WriteClaims(c); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadClaims(); err != nil {
		t.Fatal(err)
	}
}
