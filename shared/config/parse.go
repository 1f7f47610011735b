package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxFileBytes bounds a configuration file.
const maxFileBytes = 64 << 10

// maxNesting bounds the tokens that make the HCL parser call itself, nested or
// not. It takes 15 KB of stack for each bracket within a bracket, and Go ends
// a process whose stack passes 1 GB: a file of 64 KB of brackets is enough.
const maxNesting = 1000

// DefaultName names the built-in configuration in messages.
const DefaultName = "config.hcl (built in)"

// Load reads an operator's file over the defaults; without a path, only those.
func Load(path string, defaults []byte) (*Config, error) {
	if path == "" {
		return Parse("", nil, defaults)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	// One byte more than allowed: Parse then says what the bound is.
	src, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, src, defaults)
}

// Parse reads src, named in messages by name, over the defaults, which have to
// give every field. The error lists everything that is wrong.
func Parse(name string, src, defaults []byte) (*Config, error) {
	c := &Config{}
	base := reader{name: DefaultName, src: defaults, config: c}
	if err := base.read(); err != nil {
		return nil, err
	}
	for _, f := range fields {
		if _, ok := base.at[f.path]; !ok {
			base.errs.add(nil, "%s: the field %s is missing", DefaultName, f.path)
		}
	}
	if err := base.errs.orNil(); err != nil {
		return nil, err
	}
	c.sources = map[string]string{}
	own := reader{name: name, src: src, config: c}
	if err := own.read(); err != nil {
		return nil, err
	}
	if err := own.relate(); err != nil {
		return nil, err
	}
	return c, nil
}

// reader reads one file into a Config.
type reader struct {
	name   string
	src    []byte
	config *Config
	at     map[string]hcl.Range // where each field is set
	errs   Error
}

// read reads the fields. It carries on after an error, to find the others too.
func (r *reader) read() error {
	r.at = map[string]hcl.Range{}
	if len(r.src) > maxFileBytes {
		r.errs.add(nil, "%s: more than %s; want a configuration file", r.name, Bytes(maxFileBytes))
		return r.errs.orNil()
	}
	if at := tooNested(r.src, r.name); at != nil {
		r.errs.add(at, "more than %d brackets and operators; want a configuration file", maxNesting)
		return r.errs.orNil()
	}
	file, diags := hclsyntax.ParseConfig(r.src, r.name, hcl.InitialPos)
	for _, d := range diags {
		r.syntax(d)
	}
	if file != nil {
		if body, ok := file.Body.(*hclsyntax.Body); ok {
			r.body(body, "")
		}
	}
	return r.errs.orNil()
}

// tooNested returns where the file has more than maxNesting such tokens, or nil.
func tooNested(src []byte, name string) *hcl.Range {
	// What the lexer has to complain about, the parser will find again.
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	n := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
			hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			if n++; n > maxNesting {
				return &t.Range
			}
		}
	}
	return nil
}

// dotted is a field named as in messages, where a block is wanted.
var dotted = regexp.MustCompile(`^(\w+)\.(\w+)`)

// syntax takes over a finding of the HCL parser.
func (r *reader) syntax(d *hcl.Diagnostic) {
	if d.Subject != nil && d.Subject.CanSliceBytes(r.src) {
		m := dotted.FindSubmatch(r.src[d.Subject.Start.Byte:])
		if m != nil && byPath[string(m[0])] != nil {
			r.errs.add(d.Subject, "%s: a field of a block is written in it; want %s { %s = ... }", m[0], m[1], m[2])
			return
		}
	}
	r.errs.Diagnostics = append(r.errs.Diagnostics, d)
}

// broken reports whether the parser already complained about this place.
func (r *reader) broken(at hcl.Range) bool {
	return slices.ContainsFunc(r.errs.Diagnostics, func(d *hcl.Diagnostic) bool {
		return d.Subject != nil && d.Subject.Overlaps(at)
	})
}

// relate checks the rules between fields, once each field is right by itself.
func (r *reader) relate() error {
	for path, at := range r.at {
		r.config.setFrom(path, position(at))
	}
	for _, x := range r.config.conflicts() {
		r.errs.add(r.blame(x.paths), "%s", x.text)
	}
	return r.errs.orNil()
}

// blame finds the position of the first of these fields that this file sets.
func (r *reader) blame(paths []string) *hcl.Range {
	for _, p := range paths {
		if at, ok := r.at[p]; ok {
			return &at
		}
	}
	return nil
}

// body reads the attributes and blocks of one level. prefix is "" at the top
// and "heartbeat." within a block heartbeat.
func (r *reader) body(body *hclsyntax.Body, prefix string) {
	for _, a := range body.Attributes {
		if f := byPath[prefix+a.Name]; f != nil {
			r.attribute(f, a)
		} else {
			r.unknownField(prefix, a)
		}
	}
	seen := map[string]hcl.Range{}
	for _, b := range body.Blocks {
		at := b.TypeRange
		if prefix != "" || !slices.Contains(blockNames(), b.Type) {
			r.unknownBlock(prefix, b)
			continue
		}
		if len(b.Labels) > 0 {
			r.errs.add(&b.LabelRanges[0], "%s %q: this block has no label; want %s { ... }", b.Type, clip(b.Labels[0]), b.Type)
		}
		if first, twice := seen[b.Type]; twice {
			r.errs.add(&at, "block %s: given twice, first at %s; want one block with all its fields", b.Type, position(first))
			continue
		}
		seen[b.Type] = at
		r.body(b.Body, b.Type+".")
	}
}

func (r *reader) attribute(f *field, a *hclsyntax.Attribute) {
	at := a.Expr.Range()
	if r.broken(at) {
		return
	}
	text, err := value(f, a.Expr)
	if err == nil {
		err = f.set(r.config, text)
	}
	if err != nil {
		r.errs.add(&at, "%s = %s: %v; want %s", f.path, r.source(at), err, f.allowed)
		return
	}
	r.at[f.path] = at
}

// value evaluates an expression to the text that the field reads. Numbers and
// strings are not converted into each other: a number in place of a duration
// or a size is one without a unit.
func value(f *field, expr hclsyntax.Expression) (string, error) {
	v, diags := expr.Value(nil)
	if diags.HasErrors() {
		// In HCL's own words: a variable, a function, a division by zero.
		return "", errors.New(strings.ToLower(diags[0].Summary))
	}
	v, _ = v.Unmark()
	switch {
	case !v.IsKnown() || v.IsNull():
		return "", errors.New("no value")
	case f.number && v.Type() == cty.Number:
		return wholeNumber(v.AsBigFloat())
	case f.number:
		return "", errors.New("not a number (write it without quotes)")
	case v.Type() == cty.String:
		return v.AsString(), nil
	case v.Type() == cty.Number && (f.kind == "duration" || f.kind == "size"):
		return "", errors.New("the unit is missing")
	default:
		return "", errors.New("not a text in quotes")
	}
}

func wholeNumber(n *big.Float) (string, error) {
	if !n.IsInt() {
		return "", errors.New("not a whole number")
	}
	i, accuracy := n.Int64()
	if accuracy != big.Exact {
		return "", errors.New("too large or too small")
	}
	return strconv.FormatInt(i, 10), nil
}

func (r *reader) unknownField(prefix string, a *hclsyntax.Attribute) {
	names := fieldNames(prefix)
	hint := suggestion(a.Name, names)
	if prefix == "" && slices.Contains(blockNames(), a.Name) {
		hint = fmt.Sprintf(" (a block is written without an equals sign: %s { ... })", a.Name)
	} else if home := blockOf(a.Name); hint == "" && home != "" {
		hint = fmt.Sprintf(" (it belongs into the block %s)", home)
	}
	known := strings.Join(names, ", ")
	if prefix == "" {
		known += ", or a block: " + strings.Join(blockNames(), ", ")
	}
	r.errs.add(&a.NameRange, "unknown field %q%s%s; want one of %s", clip(a.Name), inBlock(prefix), hint, known)
}

func (r *reader) unknownBlock(prefix string, b *hclsyntax.Block) {
	at := b.TypeRange
	switch {
	case byPath[prefix+b.Type] != nil:
		r.errs.add(&at, "%s%s is a field, not a block; want %s = ...", prefix, b.Type, b.Type)
	case prefix != "":
		r.errs.add(&at, "unknown block %q%s; want only fields there: %s", clip(b.Type), inBlock(prefix), strings.Join(fieldNames(prefix), ", "))
	default:
		r.errs.add(&at, "unknown block %q%s; want one of %s", clip(b.Type), suggestion(b.Type, blockNames()), strings.Join(blockNames(), ", "))
	}
}

// source is the text of an expression, shortened to what fits into a message.
func (r *reader) source(at hcl.Range) string {
	if !at.CanSliceBytes(r.src) {
		return "?"
	}
	return clip(string(at.SliceBytes(r.src)))
}

// clip keeps a message on one line of reasonable length.
func clip(s string) string {
	const most = 60
	s = strings.ToValidUTF8(s, "?")
	if line, _, more := strings.Cut(s, "\n"); more {
		s = line + "..."
	}
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "..."
	}
	return s
}

func inBlock(prefix string) string {
	if prefix == "" {
		return ""
	}
	return " in the block " + strings.TrimSuffix(prefix, ".")
}

// fieldNames lists the fields of a block ("heartbeat.") or of the top ("").
func fieldNames(prefix string) []string {
	var out []string
	for _, f := range fields {
		if rest, ok := strings.CutPrefix(f.path, prefix); ok && !strings.Contains(rest, ".") {
			out = append(out, rest)
		}
	}
	return out
}

func blockNames() []string {
	var out []string
	for _, f := range fields {
		if block, _, ok := strings.Cut(f.path, "."); ok && !slices.Contains(out, block) {
			out = append(out, block)
		}
	}
	return out
}

// blockOf finds the block that has a field of this name.
func blockOf(name string) string {
	for _, f := range fields {
		if block, rest, ok := strings.Cut(f.path, "."); ok && rest == name {
			return block
		}
	}
	return ""
}

// suggestion offers the nearest of the known names, if one is near.
func suggestion(name string, known []string) string {
	if len(name) > 64 || len(known) == 0 {
		return ""
	}
	distance := func(k string) int { return levenshtein.Distance(name, k, nil) }
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	if distance(best) > 2 {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// unknown refuses a word that is not among the known ones.
func unknown(word string, known []string) error {
	return fmt.Errorf("unknown word%s", suggestion(word, known))
}
