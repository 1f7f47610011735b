package api

import "testing"

func TestWarm(t *testing.T) {
	if err := Warm(); err != nil {
		t.Error(err)
	}
}
