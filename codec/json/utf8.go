package json

import (
	"encoding"
	stdjson "encoding/json"
	"reflect"
	"unicode/utf8"
)

var (
	marshaler     = reflect.TypeFor[stdjson.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// hasInvalidUTF8 looks for a string in v that encoding/json would replace parts of. It is called only if the encoding has a replacement, which may
// also be one that a json.RawMessage had before: types that marshal themselves answer for themselves. v has no cycles, or would not have
// been encoded.
func hasInvalidUTF8(v any) bool { return invalid(reflect.ValueOf(v)) }

func invalid(v reflect.Value) bool {
	if !v.IsValid() || v.Type().Implements(marshaler) || v.Type().Implements(textMarshaler) {
		return false
	}
	if v.CanAddr() && (reflect.PointerTo(v.Type()).Implements(marshaler) || reflect.PointerTo(v.Type()).Implements(textMarshaler)) {
		return false
	}
	switch v.Kind() {
	case reflect.String:
		return !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return invalid(v.Elem())
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false // base64, or numbers
		}
		for i := range v.Len() {
			if invalid(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if invalid(it.Key()) || invalid(it.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" && invalid(v.Field(i)) {
				return true
			}
		}
	}
	return false
}
