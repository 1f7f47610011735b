package logview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TimeFormat is the format of the time at the beginning of a line in the text format.
const TimeFormat = "2006-01-02T15:04:05.000Z0700"

// Entry is a log line of a member together with the lines that belong to it, or a line of the
// output of an instance.
type Entry struct {
	At      time.Time
	Level   string // trace, debug, info, warn, error; empty if it is not a log line
	Module  string
	Message string
	Address string // of the member
	Fields  []Field
	// Raw is the original text without the last line end. IsJSON says which format it has.
	Raw    string
	IsJSON bool

	// Instance is web/1 for a line of the output of this instance. Such an entry has only the
	// following fields, and At, Message and Raw.
	Instance string
	// Partial means that the line does not end here. It can go on in the next entry of the
	// instance.
	Partial bool
	// Gap means that output of the instance is missing here. The message says so.
	Gap bool
	// position is the time by which the entries of an instance are merged. Unlike At it never
	// goes back, so that they stay in order.
	position time.Time
}

// order returns the time by which the entry is merged.
func (e *Entry) order() time.Time {
	if e.Instance != "" {
		return e.position
	}
	return e.At
}

// Field is a named value: a text or a JSON value.
type Field struct {
	Key   string
	Value any
}

// parse parses the first line of an entry. It returns false for any other line.
func parse(line string) (Entry, bool) {
	if strings.HasPrefix(line, "{") {
		return parseJSON(line)
	}
	return parseText(line)
}

func parseJSON(line string) (Entry, bool) {
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber() // epochs and indices can be too large for a float64
	if !json.Valid([]byte(line)) || d.Decode(&m) != nil {
		return Entry{}, false
	}
	text := func(key string) string { s, _ := m[key].(string); delete(m, key); return s }
	e := Entry{Level: text("@level"), Module: text("@module"), Message: text("@message"), Address: text("address"), Raw: line, IsJSON: true}
	var err error
	if e.At, err = time.Parse(time.RFC3339Nano, text("@timestamp")); err != nil || e.Level == "" {
		return Entry{}, false
	}
	// Put epoch first, as in the text format. The others have no order.
	for k, v := range m {
		e.Fields = append(e.Fields, Field{k, v})
	}
	slices.SortFunc(e.Fields, func(a, b Field) int {
		if a.Key == "epoch" || b.Key == "epoch" {
			return strings.Compare(strconv.FormatBool(a.Key != "epoch"), strconv.FormatBool(b.Key != "epoch"))
		}
		return strings.Compare(a.Key, b.Key)
	})
	return e, true
}

// parseText parses "TIME [LEVEL] module: message: address=A epoch=N key=value".
func parseText(line string) (Entry, bool) {
	stamp, rest, ok := strings.Cut(line, " [")
	level, rest, ok2 := strings.Cut(rest, "]")
	if !ok || !ok2 {
		return Entry{}, false
	}
	at, err := time.Parse(TimeFormat, stamp)
	if err != nil {
		return Entry{}, false
	}
	e := Entry{At: at, Level: strings.ToLower(strings.TrimSpace(level)), Raw: line}
	rest = strings.TrimLeft(rest, " ")
	// A message may contain colons. The address is the first field of every line.
	head, fields, ok := strings.Cut(rest, ": address=")
	if !ok {
		e.Message = rest
		return e, true
	}
	if module, message, ok := strings.Cut(head, ": "); ok {
		e.Module, e.Message = module, message
	} else {
		e.Message = head
	}
	e.Fields = fieldsOf("address=" + fields)
	if len(e.Fields) > 0 {
		e.Address, _ = e.Fields[0].Value.(string)
		e.Fields = e.Fields[1:]
	}
	return e, true
}

// fieldsOf parses key=value pairs. A value may be quoted, or a list in brackets.
func fieldsOf(text string) []Field {
	var out []Field
	for {
		text = strings.TrimLeft(text, " ")
		key, rest, ok := strings.Cut(text, "=")
		if !ok {
			return out
		}
		var value any
		switch {
		case strings.HasPrefix(rest, `"`):
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return append(out, Field{key, rest})
			}
			value, _ = strconv.Unquote(quoted)
			rest = rest[len(quoted):]
		case strings.HasPrefix(rest, "["):
			end := strings.Index(rest, "]") + 1
			if end == 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
		default:
			var bare string
			bare, rest, _ = strings.Cut(rest, " ")
			value = bare
			if n, err := strconv.ParseUint(bare, 10, 64); err == nil && strconv.FormatUint(n, 10) == bare {
				value = json.Number(bare)
			}
		}
		out = append(out, Field{key, value})
		text = rest
	}
}

// extend adds a line that does not begin an entry. In the text format, a value of several lines
// follows its name, and each of its lines begins with a bar.
func (e *Entry) extend(line string) {
	e.Raw += "\n" + line
	if bar, ok := strings.CutPrefix(line, "  | "); ok && len(e.Fields) > 0 {
		last := &e.Fields[len(e.Fields)-1]
		if s, isText := last.Value.(string); isText {
			if s != "" {
				s += "\n"
			}
			last.Value = s + strings.ReplaceAll(bar, `\t`, "\t") // hclog writes tabs like this
			return
		}
	}
	if key, ok := strings.CutPrefix(line, "  "); ok && strings.HasSuffix(key, "=") && !strings.Contains(key, " ") {
		e.Fields = append(e.Fields, Field{strings.TrimSuffix(key, "="), ""})
		return
	}
	if strings.Trim(line, " ") != "" {
		e.Fields = append(e.Fields, Field{"output", line})
	}
}

// JSON returns the entry in the JSON format, without a line end.
func (e *Entry) JSON() string {
	if e.Instance != "" {
		return e.outputJSON()
	}
	if e.IsJSON && !strings.Contains(e.Raw, "\n") {
		return e.Raw
	}
	m := map[string]any{"@level": e.Level, "@message": e.Message, "@timestamp": e.At.Format("2006-01-02T15:04:05.000000Z07:00")}
	if e.Module != "" {
		m["@module"] = e.Module
	}
	if e.Address != "" {
		m["address"] = e.Address
	}
	for _, f := range e.Fields {
		if before, twice := m[f.Key].(string); twice {
			m[f.Key] = fmt.Sprintf("%s\n%v", before, f.Value)
		} else {
			m[f.Key] = f.Value
		}
	}
	line, err := encode(m)
	if err != nil {
		return e.Raw // cannot happen with values that came from JSON or text
	}
	return line
}

func encode(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimRight(b.String(), "\n"), err
}

// Text returns the entry in the text format, without a line end.
func (e *Entry) Text() string {
	if !e.IsJSON {
		return e.Raw
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-7s ", e.At.Format(TimeFormat), "["+strings.ToUpper(e.Level)+"]")
	if e.Module != "" {
		b.WriteString(e.Module + ": ")
	}
	b.WriteString(e.Message)
	if e.Address != "" {
		b.WriteString(": address=" + e.Address)
	}
	var long []Field
	for _, f := range e.Fields {
		v := plain(f.Value)
		if strings.Contains(v, "\n") {
			long = append(long, f)
			continue
		}
		b.WriteString(" " + f.Key + "=" + quote(v))
	}
	for _, f := range long {
		b.WriteString("\n  " + f.Key + "=\n  | " + strings.ReplaceAll(plain(f.Value), "\n", "\n  | "))
	}
	return b.String()
}

func plain(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

// quote quotes a value that would not be read back as one value.
func quote(v string) string {
	if v == "" || strings.ContainsAny(v, " \"\t") || !strconv.CanBackquote(v) {
		return strconv.Quote(v)
	}
	return v
}
