package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes.
type Bytes int64

// The units of sizes. Decimal ones (MB) and abbreviations (M) are left out on
// purpose: programs disagree about what they mean.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

var units = []struct {
	name string
	size Bytes
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}

// String is the size in the largest unit that divides it, as ParseBytes reads it.
func (b Bytes) String() string {
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

// ParseBytes reads a whole number with its binary unit: 64MiB.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimLeft(s, "0123456789")
	number, unit := s[:len(s)-len(digits)], digits
	if number == "" {
		return 0, errors.New("no size")
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, errors.New("too large")
	}
	if unit == "" {
		return 0, errors.New("the unit is missing")
	}
	for _, u := range units {
		if u.name != unit {
			continue
		}
		if n > math.MaxInt64/int64(u.size) {
			return 0, errors.New("too large")
		}
		return Bytes(n) * u.size, nil
	}
	if strings.HasPrefix(unit, ".") {
		return 0, errors.New("not a whole number")
	}
	return 0, fmt.Errorf("unknown unit %q", unit)
}
