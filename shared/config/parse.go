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

// maxFileBytes bounds the size of a configuration file. It has room for thousands of services.
const maxFileBytes = 1 << 20

// maxSyntaxErrors bounds how many errors of the HCL parser are reported. A file of another kind
// can have one on every line.
const maxSyntaxErrors = 100

// maxLexicalErrors bounds how many characters without a meaning a file may have until it is not
// parsed at all: it is no configuration file.
const maxLexicalErrors = 1000

// DefaultName is the name of the built-in configuration in messages.
const DefaultName = "config.hcl (built in)"

// Load reads an operator's file over the defaults, or only the defaults if there is no path.
func Load(path string, defaults []byte) (*Config, error) {
	if path == "" {
		return Parse("", nil, defaults)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	// This reads one byte more than allowed, so that Parse reports the limit.
	src, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, src, defaults)
}

// Parse reads src over the defaults. name is src's name in messages. The defaults must set
// every field. The error lists everything that is wrong.
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
	// serviceAt is where each field of a service is set.
	serviceAt map[servicePath]hcl.Range
	errs      Error
	// syntaxErrs is how many of errs are from the HCL parser.
	syntaxErrs int
}

// read reads the fields. It continues after an error, to find the others as well.
func (r *reader) read() error {
	r.at, r.serviceAt = map[string]hcl.Range{}, map[servicePath]hcl.Range{}
	if len(r.src) > maxFileBytes {
		r.errs.add(nil, "%s: the file is larger than %s; want a configuration file", r.name, Bytes(maxFileBytes))
		return r.errs.orNil()
	}
	// The parser will report errors of the lexer again, unless they are too many to go on.
	tokens, diags := hclsyntax.LexConfig(r.src, r.name, hcl.InitialPos)
	if len(diags) > maxLexicalErrors {
		r.syntaxErrors(diags)
		return r.errs.orNil()
	}
	if at, outermost := tooNested(tokens); at != nil {
		r.errs.add(at, "brackets and operators are nested more than %d deep, from %s on; want every bracket to be closed", maxNesting, position(*outermost))
		return r.errs.orNil()
	}
	if at := tooLongTexts(tokens); at != nil {
		r.errs.add(at, "the texts up to here have too many lines, or signs $ and %%; want such a text in a file of its own")
		return r.errs.orNil()
	}
	file, diags := hclsyntax.ParseConfig(r.src, r.name, hcl.InitialPos)
	r.syntaxErrors(diags)
	if file != nil {
		if body, ok := file.Body.(*hclsyntax.Body); ok {
			r.body(body, "")
		}
	}
	return r.errs.orNil()
}

// syntaxErrors adds errors of the HCL parser, at most maxSyntaxErrors.
func (r *reader) syntaxErrors(diags hcl.Diagnostics) {
	for i, d := range diags {
		if i == maxSyntaxErrors {
			r.errs.add(d.Subject, "there are %d further errors of this kind", len(diags)-i)
			break
		}
		r.syntax(d)
	}
	r.syntaxErrs = len(r.errs.Diagnostics)
}

// dotted matches a field that is written with a dot instead of in a block.
var dotted = regexp.MustCompile(`^(\w+)\.(\w+)`)

// syntax adds an error of the HCL parser, in better words if there are any.
func (r *reader) syntax(d *hcl.Diagnostic) {
	if d.Subject != nil && d.Subject.CanSliceBytes(r.src) {
		m := dotted.FindSubmatch(r.src[d.Subject.Start.Byte:])
		if m != nil && (byPath[string(m[0])] != nil || serviceByPath[string(m[0])] != nil) {
			r.errs.add(d.Subject, "%s: a field of a block is written inside the block; want %s { %s = ... }", m[0], m[1], m[2])
			return
		}
	}
	r.errs.Diagnostics = append(r.errs.Diagnostics, d)
}

// broken reports whether the parser has already reported an error at this place.
func (r *reader) broken(at hcl.Range) bool {
	return slices.ContainsFunc(r.errs.Diagnostics[:r.syntaxErrs], func(d *hcl.Diagnostic) bool {
		return d.Subject != nil && d.Subject.Overlaps(at)
	})
}

// relate checks the rules between fields, after each field is valid by itself.
func (r *reader) relate() error {
	for path, at := range r.at {
		r.config.setFrom(path, position(at))
	}
	for _, x := range r.config.conflicts() {
		r.errs.add(r.blame(x.paths), "%s", x.text)
	}
	for _, x := range r.config.serviceConflicts() {
		r.errs.add(r.blameService(x), "%s", x.text)
	}
	return r.errs.orNil()
}

// blame returns the position of the first of these fields that this file sets.
func (r *reader) blame(paths []string) *hcl.Range {
	for _, p := range paths {
		if at, ok := r.at[p]; ok {
			return &at
		}
	}
	return nil
}

// body reads the attributes and blocks of one level. prefix is "" at the top level and
// "heartbeat." in the block heartbeat.
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
		if prefix == "" && b.Type == serviceBlock {
			r.service(b)
			continue
		}
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

func (r *reader) attribute(f *field[Config], a *hclsyntax.Attribute) {
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
	if f.path == dataDirField {
		r.config.dataDirText = text
	}
}

// dataDirField is the path of the field DataDir.
const dataDirField = "data_dir"

// value evaluates an expression to the text that the field parses. It does not convert between
// numbers and strings: a number where a duration or a size is expected has no unit.
func value[T any](f *field[T], expr hclsyntax.Expression) (string, error) {
	v, diags := expr.Value(nil)
	if diags.HasErrors() {
		// These are HCL's own words, for example for a variable, a function or a division by
		// zero.
		text := strings.ToLower(diags[0].Summary)
		switch expr.(type) {
		case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
			text += ` (for a literal "${" write "$${")`
		}
		return "", errors.New(text)
	}
	v, _ = v.Unmark()
	switch {
	case !v.IsKnown() || v.IsNull():
		return "", errors.New("no value")
	case f.convert != nil:
		return f.convert(v)
	case f.number && v.Type() == cty.Number:
		return wholeNumber(v.AsBigFloat())
	case f.number:
		return "", errors.New("not a number (write it without quotes)")
	case v.Type() == cty.String:
		return v.AsString(), nil
	case v.Type() == cty.Number && (f.kind == "duration" || f.kind == "size"):
		return "", errors.New("the unit is missing")
	default:
		return "", errors.New("not a string in quotes")
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
		hint = fmt.Sprintf(" (it belongs in the block %s)", home)
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

// source returns the text of an expression, shortened for a message.
func (r *reader) source(at hcl.Range) string {
	if !at.CanSliceBytes(r.src) {
		return "?"
	}
	return clip(string(at.SliceBytes(r.src)))
}

// clip shortens a text so that a message stays on one line of reasonable length.
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

// fieldNames returns the fields of a block ("heartbeat.") or of the top level ("").
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
	return append(out, serviceBlock)
}

// blockOf returns the block that has a field of this name, or "".
func blockOf(name string) string {
	for _, f := range fields {
		if block, rest, ok := strings.Cut(f.path, "."); ok && rest == name {
			return block
		}
	}
	return ""
}

// suggestion returns a hint with the nearest known name, if one is similar.
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

// unknown returns an error for a word that is not among the known ones.
func unknown(word string, known []string) error {
	return fmt.Errorf("unknown word%s", suggestion(word, known))
}
