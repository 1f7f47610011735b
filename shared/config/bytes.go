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

// The units of sizes. Decimal units (MB) and abbreviations (M) are not supported, because
// programs disagree about their meaning.
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

// String returns the size in the largest unit that divides it, in the form that ParseBytes
// reads.
func (b Bytes) String() string {
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

// ParseBytes parses a whole number with a binary unit, like 64MiB.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimLeft(s, "0123456789")
	number, unit := s[:len(s)-len(digits)], digits
	if number == "" {
		return 0, errors.New("not a size")
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
