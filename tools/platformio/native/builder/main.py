"""Link one program for this computer."""

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
env.Replace(PROGNAME="program")
Default([env.BuildProgram()])
