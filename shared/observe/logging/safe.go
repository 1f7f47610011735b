package logging

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// These bound the content of one line. Longer text is cut, with a note.
const (
	maxTextBytes = 32 << 10
	maxElements  = 100
)

// safe is a logger that no value can break. hclog itself passes on a panic of a String or
// MarshalJSON method, which tears the next line. And it silently drops a JSON line with a value
// that cannot be marshalled.
type safe struct {
	hclog.Logger
	json bool
}

func (s safe) Trace(msg string, args ...any) { s.Log(hclog.Trace, msg, args...) }
func (s safe) Debug(msg string, args ...any) { s.Log(hclog.Debug, msg, args...) }
func (s safe) Info(msg string, args ...any)  { s.Log(hclog.Info, msg, args...) }
func (s safe) Warn(msg string, args ...any)  { s.Log(hclog.Warn, msg, args...) }
func (s safe) Error(msg string, args ...any) { s.Log(hclog.Error, msg, args...) }

func (s safe) Log(level hclog.Level, msg string, args ...any) {
	if level < s.GetLevel() {
		return
	}
	s.Logger.Log(level, cut(msg), s.clean(args)...)
}

func (s safe) With(args ...any) hclog.Logger { return s.Logger.With(s.clean(args)...) }

// clean replaces each value by one that can be rendered without calling its methods. args are
// pairs. A single last one is left to hclog.
func (s safe) clean(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch {
		case i%2 == 1:
			out[i] = s.value(a)
		case i == len(args)-1:
			if _, ok := a.(hclog.CapturedStacktrace); ok {
				out[i] = a
			} else {
				out[i] = s.value(a)
			}
		default:
			out[i] = key(a)
		}
	}
	return out
}

// key renames keys that hclog's JSON format uses itself (@message).
func key(a any) string {
	k, ok := a.(string)
	if !ok {
		k = fmt.Sprint(a)
	}
	if strings.HasPrefix(k, "@") {
		return "_" + k
	}
	return k
}

func (s safe) value(a any) (v any) {
	defer func() {
		if r := recover(); r != nil {
			v = fmt.Sprintf("(%T: panic: %v)", a, r)
		}
	}()
	switch a := a.(type) {
	case nil:
		return "<nil>"
	case string:
		return cut(a)
	case bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64,
		hclog.Hex, hclog.Octal, hclog.Binary, hclog.CapturedStacktrace:
		return a
	case float32:
		return number(float64(a))
	case float64:
		return number(a)
	case hclog.Quote:
		return hclog.Quote(cut(string(a)))
	case hclog.Format:
		return cut(fmt.Sprintf(a[0].(string), a[1:]...))
	case time.Time:
		return a.Format(time.RFC3339Nano)
	case error:
		return cut(a.Error())
	case fmt.Stringer:
		return cut(a.String())
	case []byte:
		return cut(fmt.Sprintf("%q", a[:min(len(a), maxTextBytes)]))
	default:
		return s.composite(a)
	}
}

func number(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Sprint(f) // JSON cannot represent them
	}
	return f
}

// composite renders lists, structs and maps.
func (s safe) composite(a any) any {
	if s.json {
		if b, err := json.Marshal(a); err == nil && len(b) <= maxTextBytes {
			return json.RawMessage(b)
		}
		return cut(fmt.Sprintf("%+v", a))
	}
	if v := reflect.ValueOf(a); v.Kind() == reflect.Slice && v.Len() <= maxElements {
		return a // hclog renders each element of a list with fmt
	}
	return cut(fmt.Sprintf("%+v", a))
}

func cut(text string) string {
	if len(text) <= maxTextBytes {
		return text
	}
	return fmt.Sprintf("%s... (%d bytes more)", strings.ToValidUTF8(text[:maxTextBytes], ""), len(text)-maxTextBytes)
}
