package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stagebus/stagebus/internal/nearest"
)

// flagError says what is wrong with a flag in words that know nothing of Go, and what was probably meant.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var wrong *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return fmt.Errorf("unknown flag -%s for %q", name, c.CommandPath())
		}
		s := fmt.Sprintf("unknown flag --%s for %q", name, c.CommandPath())
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := nearest.Of(name, known); near != "" {
			s += fmt.Sprintf("; did you mean --%s?", near)
		}
		return errors.New(s)
	case errors.As(err, &bare):
		return fmt.Errorf("--%s needs a value", bare.GetFlag().Name)
	case errors.As(err, &wrong):
		f := wrong.GetFlag()
		return fmt.Errorf("--%s %q: %s", f.Name, wrong.GetValue(), expected(f, wrong.Unwrap()))
	}
	return err
}

// expected says what the value of a flag is, given the error of one that isn't.
func expected(f *pflag.Flag, err error) string {
	switch f.Value.Type() {
	case "duration":
		return "it is a duration such as 10s or 1m30s"
	case "int", "int32":
		return "it is a whole number"
	case "uint8":
		return "it is a whole number from 0 to 255"
	case "bool":
		return "it is true or false"
	case "stringToString":
		return "it is name=value"
	}
	return err.Error()
}

// plainArgs makes the commands below c say in plain words which arguments they take.
func plainArgs(c *cobra.Command) {
	for _, sub := range c.Commands() {
		plainArgs(sub)
	}
	check := c.Args
	if check == nil || c.HasSubCommands() { // those know better, see noSuchCommand
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		var own *argsError
		switch {
		case err == nil, errors.As(err, &own):
			return err
		case check(c, append(args[:len(args):len(args)], "one more")) == nil:
			return fmt.Errorf("an argument is missing: %s", c.UseLine())
		}
		return fmt.Errorf("too many arguments, from %q on: %s", args[mostArgs(check, c, args)], c.UseLine())
	}
}

// mostArgs returns how many of args a command would take.
func mostArgs(check cobra.PositionalArgs, c *cobra.Command, args []string) int {
	for n := len(args) - 1; n > 0; n-- {
		if check(c, args[:n]) == nil {
			return n
		}
	}
	return 0
}

// argsError is of a command that says best itself what its arguments are.
type argsError struct{ reason string }

func (e *argsError) Error() string { return e.reason }
