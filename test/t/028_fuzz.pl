
# Random calls: names of callbacks, arguments, ids, times and intervals that
# nobody would write, thrown at the functions that schedule while workers run
# what comes of them.  Every answer is a result or an error that says what is
# wrong with the call; the tables stay consistent; and no text that we are
# given is ever executed.
#
# TASKSHED_FUZZ_SEED=n repeats the calls of a run, whose seed is printed;
# TASKSHED_FUZZ_CALLS=n makes more or fewer than 20000.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $seed  = $ENV{TASKSHED_FUZZ_SEED}  || int(rand(2**31));
my $calls = $ENV{TASKSHED_FUZZ_CALLS} || 20000;

srand($seed);
diag("seed: TASKSHED_FUZZ_SEED=$seed");

# (%e: the SQLSTATE, to see what the workers meet.)
my $node = taskshed_node(
	'fuzz', conf => q{
log_line_prefix = '%m [%p] %b %e %q%u@%d '
taskshed.max_workers = 2
});

# What would be executed if a text escaped from where it is quoted
my $injection = 'INSERT INTO fuzz.marker DEFAULT VALUES';

# Functions of all shapes, with hostile names too, and the keys that they take,
# each with the kind of value that suits it
my %callbacks = (
	'nothing' => {},
	'ints'    => { a => 'int',  b => 'int' },
	'texts'   => { t => 'text', c => 'text', n => 'text' },
	'numbers' => { n => 'num',  f => 'num',  m => 'num', o => 'int' },
	'times'   =>
	  { t => 'time', ts => 'time', d => 'time', i => 'every', tm => 'time' },
	'others' => {
		u    => 'text',
		b    => 'text',
		i    => 'text',
		e    => 'text',
		x    => 'text',
		bits => 'text'
	},
	'positives'      => { p  => 'int',    ps => 'array' },
	'arrays'         => { a  => 'array',  t  => 'array',  c  => 'array' },
	'composites'     => { p  => 'object', n  => 'object', ps => 'array' },
	'ranges'         => { r  => 'text',   m  => 'text' },
	'jsons'          => { j  => 'any',    b  => 'any' },
	'poly'           => { x  => 'any' },
	'polyarray'      => { xs => 'array' },
	'polyboth'       => { x  => 'any', xs => 'array' },
	'polycompatible' => { x  => 'any', y  => 'any' },
	'polyrange'      => { r  => 'text' },
	'"variadic"'     => { v  => 'array' },
	'variadicpoly'   => { v  => 'array' },
	'whole'        => { anything => 'any', kwargs => 'any', other => 'any' },
	'outs'         => { a        => 'int', b      => 'int', c     => 'text' },
	'tables'       => { a        => 'int', x      => 'int' },
	'sets'         => { n        => 'int' },
	'fails'        => { m        => 'text' },
	'skipped'      => { a        => 'int' },
	'unnamed'      => { a        => 'int' },
	'overloaded'   => { a        => 'int', b => 'int', c => 'text' },
	'commits'      => { n        => 'int' },
	'inouts'       => { a        => 'int', b => 'text' },
	'denied'       => {},
	'total'        => { n => 'int' },
	'changed'      => {},
	'cstrings'     => { c => 'text' },
	'regs'         => { c => 'text', t => 'text', p => 'text', ns => 'text' },
	'"Mixed Case"' => { 'Key' => 'int', 'key' => 'int', 'a b' => 'text' },
	'"f""(); '
	  . $injection
	  . '; --"' => { 'a" => 1); ' . $injection . '; --' => 'text' },
	'"it\'\'s $1 \\ %s.()"' =>
	  { '$1' => 'int', "'); $injection; --" => 'text' },
	"\"new\nline\""        => { "k\nk"           => 'text' },
	"\x{fc}ber\x{1f600}"   => { "schl\x{fc}ssel" => 'text' },
	'"' . ('x' x 63) . '"' => { ('k' x 63)       => 'int' },
	'"."'                  => { '.'              => 'int' });
my @names = sort keys %callbacks;

$node->safe_psql(
	'postgres', qq{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE "o'd""d" LOGIN;
CREATE ROLE nologin;
GRANT bob, "o'd""d", nologin TO alice;
CREATE SCHEMA fuzz;
CREATE SCHEMA closed;
CREATE SCHEMA "sch;e\"\"ma";
GRANT USAGE ON SCHEMA fuzz, "sch;e\"\"ma" TO PUBLIC;
GRANT CREATE ON SCHEMA fuzz TO PUBLIC;
CREATE TABLE fuzz.marker (at timestamptz DEFAULT now());
GRANT ALL ON fuzz.marker TO PUBLIC;
SET search_path = fuzz;
SET check_function_bodies = off;

CREATE TYPE colour AS ENUM ('red', 'green');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN positives AS integer[] CHECK (array_length(VALUE, 1) < 4);
CREATE TYPE pair AS (x integer, y text);
CREATE TYPE nested AS (p pair, ps pair[], d positive);

CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION ints(a integer, b bigint DEFAULT 2) RETURNS bigint LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION texts(t text, c varchar(3) DEFAULT 'c', n name DEFAULT 'n') RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION numbers(n numeric DEFAULT 1, f float8 DEFAULT 1, m money DEFAULT '1', o oid DEFAULT 1)
	RETURNS text LANGUAGE sql AS 'SELECT format(''%s %s %s %s'', n, f, m, o)';
CREATE FUNCTION times(t timestamptz DEFAULT now(), ts timestamp DEFAULT now(), d date DEFAULT now(),
	i interval DEFAULT '1 day', tm timetz DEFAULT now()) RETURNS text LANGUAGE sql AS 'SELECT t::text';
CREATE FUNCTION others(u uuid DEFAULT NULL, b bytea DEFAULT NULL, i inet DEFAULT NULL, e colour DEFAULT NULL,
	x xml DEFAULT NULL, bits bit varying DEFAULT NULL) RETURNS text LANGUAGE sql AS 'SELECT b::text';
CREATE FUNCTION positives(p positive, ps positives DEFAULT NULL) RETURNS integer LANGUAGE sql AS 'SELECT p';
CREATE FUNCTION arrays(a integer[] DEFAULT NULL, t text[] DEFAULT NULL, c colour[] DEFAULT NULL)
	RETURNS text LANGUAGE sql AS 'SELECT a::text';
CREATE FUNCTION composites(p pair DEFAULT NULL, n nested DEFAULT NULL, ps pair[] DEFAULT NULL)
	RETURNS text LANGUAGE sql AS 'SELECT n::text';
CREATE FUNCTION ranges(r int4range DEFAULT NULL, m datemultirange DEFAULT NULL) RETURNS text LANGUAGE sql AS 'SELECT r::text';
CREATE FUNCTION jsons(j json DEFAULT NULL, b jsonb DEFAULT NULL) RETURNS text LANGUAGE sql AS 'SELECT j::text';
CREATE FUNCTION poly(x anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION polyarray(xs anyarray) RETURNS anyelement LANGUAGE sql AS 'SELECT xs[1]';
CREATE FUNCTION polyboth(x anyelement, xs anyarray) RETURNS boolean LANGUAGE sql AS 'SELECT x = ANY (xs)';
CREATE FUNCTION polycompatible(x anycompatible, y anycompatible) RETURNS text LANGUAGE sql AS 'SELECT x::text';
CREATE FUNCTION polyrange(r anyrange) RETURNS text LANGUAGE sql AS 'SELECT r::text';
CREATE FUNCTION "variadic"(VARIADIC v text[]) RETURNS integer LANGUAGE sql AS 'SELECT cardinality(v)';
CREATE FUNCTION variadicpoly(VARIADIC v anyarray) RETURNS integer LANGUAGE sql AS 'SELECT cardinality(v)';
CREATE FUNCTION whole(kwargs jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT kwargs';
CREATE FUNCTION outs(a integer, INOUT b integer, OUT c text) LANGUAGE sql AS 'SELECT b, a::text';
CREATE FUNCTION tables(a integer) RETURNS TABLE (x integer, y text) LANGUAGE sql AS 'SELECT a, a::text';
CREATE FUNCTION sets(n integer) RETURNS SETOF integer LANGUAGE sql AS 'SELECT generate_series(1, least(n, 5))';
CREATE FUNCTION fails(m text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''%'', m; END';
CREATE FUNCTION skipped(a integer) RETURNS integer LANGUAGE sql STRICT AS 'SELECT a';
CREATE FUNCTION unnamed(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION overloaded(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION overloaded(a text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION overloaded(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION overloaded(c text, d integer DEFAULT 1, e integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE commits(n integer) LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / n; COMMIT; PERFORM 1; ROLLBACK; END';
CREATE PROCEDURE inouts(INOUT a integer, OUT b text) LANGUAGE plpgsql AS 'BEGIN b := a; END';
CREATE FUNCTION denied() RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON FUNCTION denied() FROM PUBLIC;
CREATE AGGREGATE total(n integer) (SFUNC = int4pl, STYPE = integer);
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION cstrings(c cstring) RETURNS void LANGUAGE internal AS 'unknownin';
CREATE FUNCTION regs(c regclass DEFAULT NULL, t regrole DEFAULT NULL, p regprocedure DEFAULT NULL,
	ns regnamespace DEFAULT NULL) RETURNS text LANGUAGE sql AS 'SELECT c::text';
CREATE FUNCTION "Mixed Case"("Key" integer, key integer DEFAULT 1, "a b" text DEFAULT '') RETURNS integer LANGUAGE sql AS 'SELECT "Key"';
CREATE FUNCTION closed.inside() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "sch;e\"\"ma"."fun""c"() RETURNS void LANGUAGE sql AS '';

CREATE TABLE input (n integer PRIMARY KEY, kind text NOT NULL, a jsonb NOT NULL);
CREATE TABLE answer (n integer NOT NULL, state text NOT NULL, message text, of_value boolean NOT NULL);
GRANT ALL ON input, answer TO PUBLIC;
});

# Those with hostile names are written from the table above, each name of an
# argument being of the type that suits it.
my %sql_type = (int => 'integer', text => 'text');
foreach my $name (grep { /[^a-zA-Z" ]|x{63}/ } @names)
{
	my $arguments = join(
		', ',
		map {
			(my $quoted = $_) =~ s/"/""/g;
			"\"$quoted\" $sql_type{$callbacks{$name}->{$_}} DEFAULT NULL"
		} sort keys %{ $callbacks{$name} });

	my $sql =
	  qq{CREATE FUNCTION fuzz.$name($arguments) RETURNS void LANGUAGE sql AS ''};
	utf8::encode($sql);
	$node->safe_psql('postgres', $sql);
}

# Functions of the server, as strange as any: checked only, not called
my $builtin = decode_json(
	$node->safe_psql(
		'postgres', q{
		SELECT json_agg(json_build_object('name', proname,
			'keys', coalesce(proargnames[1:pronargs], '{}')) ORDER BY oid)
		FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
}));

# ------------------------------------------------------------------------
# What the calls are made of

sub one_of
{
	return $_[ int(rand(scalar @_)) ];
}

sub maybe
{
	return rand() < $_[0];
}

my @alphabets = (
	[ 'a' .. 'z' ],
	[ 'a' .. 'f', '_', '0' .. '9', 'A' .. 'F' ],
	[
		'"', "'", '.', '(', ')', ';', '$', '\\',
		'%', ' ', '{', '}', ',', '-', 'a'
	],
	[ map { chr } 1 .. 126 ],
	[
		"\x{e4}",   "\x{df}",   "\x{1f600}", "\x{301}",
		"\x{4e2d}", "\x{202e}", "\x{feff}",  'x'
	]);
my @texts = (
	'',                          ' ',
	'.',                         '..',
	'"',                         '""',
	'"."',                       "'",
	'null',                      'NULL',
	'{}',                        '[]',
	'$1',                        '%s%n%d',
	'\\',                        '\\x00',
	"');$injection;--",          "\";$injection;--",
	"\$\$;$injection;--",        "'||($injection)||'",
	"nothing(); $injection",     "nothing() ; $injection; --",
	"\"nothing\"; $injection",   "fuzz.nothing",
	"FUZZ.NOTHING",              "fuzz.\"nothing",
	"\"fuzz\".\"nothing\"",      "fuzz . nothing",
	' nothing ',                 "nothing\n",
	'pg_temp.nothing',           'pg_catalog.now',
	'now',                       'closed.inside',
	'"sch;e""ma"."fun""c"',      'taskshed.execute',
	'execute',                   'taskshed._start_scheduler',
	'taskshed.remove_all_tasks', 'postgres.fuzz.nothing',
	'a.b.c.d',                   'information_schema._pg_expandarray',
	'x' x 63,                    'x' x 64,
	'x' x 255,                   'x' x 256,
	'x' x 5000, ("\x{e4}" x 31) . 'x',
	"\x{e4}" x 255,           "\x{e4}" x 256,
	'VACUUM',                 'SELECT 1',
	'DROP TABLE fuzz.marker', '1',
	'true',                   '-1',
	'2100-01-01',             'infinity',
	'nan',                    '1e400');

sub text
{
	return one_of(@texts) if maybe(0.5);
	my $alphabet = one_of(@alphabets);
	return
	  join('', map { one_of(@$alphabet) } 1 .. one_of(1 .. 12, 63, 64, 70));
}

sub number
{
	return one_of(0, 1, 2, -1, 7, 42, 2147483647, -2147483648, 2147483648,
		'1' . ('0' x 30),
		0.1, -1.5, 1e300, 5e-324);
}

sub run_at
{
	return one_of(
		'infinity',                        '-infinity',
		'now',                             'epoch',
		'tomorrow',                        '4714-11-24 BC',
		'294276-12-31 23:59:59.999999+00', '0001-01-01 BC',
		'2100-02-29',                      '24:00',
		text()) if maybe(0.15);
	return sprintf(
		'%d-%02d-%02d %02d:%02d:%02d%+03d',
		one_of(1, 1970, 2000, 2024, 2100, 2100, 2100, 9999, 100000),
		1 + rand(12),
		1 + rand(28),
		rand(24), rand(60), rand(60), rand(24) - 12);
}

sub every
{
	return one_of(
		'0',
		'-1 s',
		'1 us',
		'0.1 us',
		'178000000 years',
		'-178000000 years',
		'2147483647 days',
		'1 mon -30 days',
		'-1 mon 32 days',
		'1 day -24:00',
		'infinity',
		'P1Y2M',
		text()) if maybe(0.2);
	return
		int(rand(1000)) . ' '
	  . one_of('ms', 's', 'min', 'hours', 'days', 'mons', 'years')
	  . one_of('', '',
		' ' . (int(rand(100)) - 50) . ' ' . one_of('days', 'hours', 'us'));
}

sub any
{
	my ($depth) = @_;

	$depth ||= 0;
	my $kind = int(rand($depth > 3 ? 5 : 8));
	return                                         if $kind == 0;
	return number()                                if $kind == 1;
	return one_of(JSON::PP::true, JSON::PP::false) if $kind == 2;
	return text()                                  if $kind <= 4;
	return object($depth + 1)                      if $kind == 7;
	return array($depth + 1);
}

sub array
{
	my ($depth) = @_;

	return []                                          if maybe(0.1);
	return [ map { any($depth) } 1 .. one_of(1 .. 4) ] if maybe(0.4);
	my $make = one_of(
		\&number, \&text,
		sub { object($depth) },
		sub { [ 1, 2 ] },
		sub { one_of(1, 2, undef) });
	return [ map { $make->() } 1 .. one_of(1 .. 4) ];
}

sub object
{
	my ($depth) = @_;

	return {
		map {
			one_of('x', 'y', 'p', 'ps', 'd', 'kwargs', text()) => any($depth)
		} 1 .. one_of(0 .. 4)
	};
}

sub value
{
	my ($kind) = @_;

	return any()                        if maybe(0.1) || $kind eq 'any';
	return                              if maybe(0.1);
	return number()                     if $kind eq 'num';
	return one_of(0 .. 9, -1, number()) if $kind eq 'int';
	return array()                      if $kind eq 'array';
	return object()                     if $kind eq 'object';
	return run_at()                     if $kind eq 'time';
	return every()                      if $kind eq 'every';
	return one_of(
		'red',                                  'green',
		'[1,3)',                                '{[2100-01-01,2100-02-01)}',
		'\\xff00',                              '10.0.0.1/8',
		'101',                                  '<a/>',
		'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'fuzz.input',
		'pg_catalog.now()',                     text());
}

# A callback, mostly one that there is, and kwargs, mostly those it takes
sub callback
{
	my $name = one_of(@names);
	my %kwargs;

	foreach my $key (sort keys %{ $callbacks{$name} })
	{
		$kwargs{$key} = value($callbacks{$name}->{$key}) if maybe(0.8);
	}
	if (maybe(0.15))
	{
		my $key = one_of('a', 'A', 'aa', ' a', text());
		$kwargs{$key} = any();
	}
	if (maybe(0.01))
	{
		%kwargs =
		  map { ("key$_" => $_) } 1 .. one_of(99, 100, 101, 1664, 2000);
	}
	my $kwargs = \%kwargs;
	$kwargs = one_of(any(), encode_json($kwargs), undef, [$kwargs])
	  if maybe(0.05);
	if (maybe(0.02))
	{
		my $depth = one_of(10, 100, 500);
		$kwargs = { x => {} };
		$kwargs = { x => $kwargs } for 1 .. $depth;
	}
	$name = one_of(text(), "fuzz.$name", "alias " . int(rand(3)),
		uc($name), "$name()")
	  if maybe(0.3);
	return ($name, $kwargs);
}

sub id
{
	return        if maybe(0.05);
	return text() if maybe(0.1);
	return 'task ' . int(rand(300));
}

sub group
{
	return maybe(0.1) ? text() : 'group ' . int(rand(10));
}

sub owner
{
	return one_of('alice', 'bob', 'o\'d"d', 'nologin', 'no such role',
		'postgres', text());
}

sub task
{
	my %task;

	# (Not due: what the server's own functions do is none of our business.)
	if (maybe(0.15))
	{
		my $function = one_of(@$builtin);
		return {
			callback => $function->{name},
			kwargs   => {
				map  { ($_ => any()) }
				grep { $_ ne '' && maybe(0.9) } @{ $function->{keys} }
			},
			run_at  => '2100-01-01',
			paused  => JSON::PP::true,
			task_id => 'builtin ' . int(rand(100))
		};
	}
	($task{callback}, $task{kwargs}) = callback();
	$task{run_at}   = run_at()                                if maybe(0.7);
	$task{every}    = every()                                 if maybe(0.3);
	$task{run_type} = one_of('once', 'recurring', text())     if maybe(0.1);
	$task{task_id}  = id()                                    if maybe(0.9);
	$task{group_id} = group()                                 if maybe(0.5);
	$task{paused}   = one_of(JSON::PP::true, JSON::PP::false) if maybe(0.2);
	$task{catch_up} = one_of('coalesce', 'skip', 'coalesce', text())
	  if maybe(0.2);
	$task{replace_existing} = one_of(JSON::PP::true, JSON::PP::false)
	  if maybe(0.3);
	$task{timezone} =
	  one_of('UTC', 'Europe/Berlin', 'America/New_York', 'EST5EDT', '+05:30',
		'<x>-1', text())
	  if maybe(0.1);
	$task{owner}    = owner()                                 if maybe(0.2);
	$task{validate} = one_of(JSON::PP::true, JSON::PP::false) if maybe(0.1);
	return \%task;
}

sub selector
{
	my %selector;

	$selector{task_ids} = [ map { id() } 1 .. one_of(0 .. 5) ] if maybe(0.6);
	$selector{group_id} = group()
	  if !exists $selector{task_ids} || maybe(0.1);
	$selector{owner} = owner() if maybe(0.3);
	return \%selector;
}

# One call: which function, and its arguments
sub call
{
	my $kind = int(rand(100));

	return ('add_task', task()) if $kind < 48;
	if ($kind < 60)
	{
		my @tasks = map { task() } 1 .. one_of(0 .. 4);
		my $tasks = \@tasks;
		$tasks[0]->{ text() } = any() if @tasks && maybe(0.1);
		$tasks[0]->{ one_of(sort keys %{ $tasks[0] }) } = any()
		  if @tasks && maybe(0.2);
		push(@tasks, any()) if maybe(0.1);
		$tasks = any()      if maybe(0.1);
		return (
			'add_tasks',
			{
				tasks => $tasks,
				maybe(0.3)
				? (replace_existing =>
					  one_of(JSON::PP::true, JSON::PP::false))
				: ()
			});
	}
	return (
		'update_execution_times',
		{
			pairs => [
				map {
					{
						task_id => id(),
						maybe(0.95) ? (run_at => run_at()) : ()
					}
				} 1 .. one_of(0 .. 5)
			],
			maybe(0.2) ? (owner => owner()) : ()
		}) if $kind < 72;
	return (
		one_of(
			'pause_tasks', 'resume_tasks', 'resume_tasks', 'remove_tasks',
			'fetch_tasks'),
		selector()) if $kind < 85;
	return (
		one_of(
			'pause_task',  'resume_task',
			'remove_task', 'fetch_task',
			'update_execution_time'),
		{
			task_id => id(),
			run_at  => run_at(),
			maybe(0.2) ? (owner => owner()) : ()
		}) if $kind < 92;
	return ('try_task', { task_id => id() }) if $kind < 97;
	return (
		one_of('add_callback', 'add_callback', 'remove_callback'),
		{
			name     => one_of('alias 0', 'alias 1', 'alias 2', text()),
			callback => (callback())[0],
			replace_existing => one_of(JSON::PP::true, undef)
		});
}

my $json = JSON::PP->new->canonical->ascii->allow_nonref;
my $file = "$PostgreSQL::Test::Utils::tmp_check/fuzz_input";
open(my $input, '>', $file) or die "could not write $file: $!";
foreach my $n (1 .. $calls)
{
	my ($kind, $arguments) = call();
	(my $line = $json->encode($arguments)) =~ s/\\/\\\\/g;
	print $input "$n\t$kind\t$line\n";
}
close($input) or die "could not write $file: $!";
$node->safe_psql('postgres', "\\copy fuzz.input FROM '$file'");
is($node->safe_psql('postgres', 'SELECT count(*) FROM fuzz.input'),
	$calls, "$calls calls");

# ------------------------------------------------------------------------
# The calls are made

$node->safe_psql(
	'postgres', q{
CREATE FUNCTION fuzz.call(kind text, a jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ids text[] := CASE WHEN jsonb_typeof(a->'task_ids') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(a->'task_ids')) END;
	times taskshed.task_execution_time[];
BEGIN
	CASE kind
		WHEN 'add_task' THEN
			RETURN taskshed.add_task(a->>'callback', (a->>'run_at')::timestamptz, a->'kwargs', a->>'run_type', (a->>'every')::interval,
				a->>'task_id', a->>'group_id', (a->>'paused')::boolean, a->>'catch_up', (a->>'replace_existing')::boolean,
				timezone => a->>'timezone', owner => (a->>'owner')::name, validate => (a->>'validate')::boolean);
		WHEN 'add_tasks' THEN
			RETURN taskshed.add_tasks(a->'tasks', (a->>'replace_existing')::boolean);
		WHEN 'update_execution_times' THEN
			SELECT array_agg((p->>'task_id', (p->>'run_at')::timestamptz)::taskshed.task_execution_time)
			INTO times FROM jsonb_array_elements(a->'pairs') p;
			RETURN taskshed.update_execution_times(times, (a->>'owner')::name);
		WHEN 'pause_tasks' THEN RETURN taskshed.pause_tasks(ids, a->>'group_id', (a->>'owner')::name);
		WHEN 'resume_tasks' THEN RETURN taskshed.resume_tasks(ids, a->>'group_id', (a->>'owner')::name);
		WHEN 'remove_tasks' THEN RETURN taskshed.remove_tasks(ids, a->>'group_id', (a->>'owner')::name);
		WHEN 'fetch_tasks' THEN
			RETURN (SELECT count(f::text) FROM taskshed.fetch_tasks(ids, a->>'group_id', (a->>'owner')::name) f);
		WHEN 'pause_task' THEN RETURN taskshed.pause_task(a->>'task_id', (a->>'owner')::name);
		WHEN 'resume_task' THEN RETURN taskshed.resume_task(a->>'task_id', (a->>'owner')::name);
		WHEN 'remove_task' THEN RETURN taskshed.remove_task(a->>'task_id', (a->>'owner')::name);
		WHEN 'fetch_task' THEN RETURN taskshed.fetch_task(a->>'task_id', (a->>'owner')::name);
		WHEN 'update_execution_time' THEN
			RETURN taskshed.update_execution_time(a->>'task_id', (a->>'run_at')::timestamptz, (a->>'owner')::name);
		WHEN 'try_task' THEN RETURN taskshed.try_task(a->>'task_id');
		WHEN 'add_callback' THEN
			RETURN taskshed.add_callback(a->>'name', a->>'callback', (a->>'replace_existing')::boolean);
		WHEN 'remove_callback' THEN RETURN taskshed.remove_callback(a->>'name');
	END CASE;
END $$;
CREATE PROCEDURE fuzz.drive(part integer) LANGUAGE plpgsql AS $$
DECLARE
	c record;
	state text;
	message text;
	context text;
	of_value boolean;
BEGIN
	FOR c IN SELECT * FROM fuzz.input WHERE n % 2 = part ORDER BY n LOOP
		of_value := false;
		BEGIN
			message := left(fuzz.call(c.kind, c.a), 100);
			state := '00000';
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
				context = PG_EXCEPTION_CONTEXT;
			/* (the types in that of a regprocedure have a context of their own) */
			of_value := context ~ '(^|\n)argument ".*" \(.*\) of callback ';
		END;
		INSERT INTO fuzz.answer VALUES (c.n, state, message, of_value);
		IF c.n / 2 % 20 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;
});

# Two roles at once, the one having much to do with the tasks of the other
my @sessions = map { session($node) } 0, 1;
$sessions[0]->query(
	'SET SESSION AUTHORIZATION alice; SET search_path = fuzz, pg_catalog');
$sessions[1]
  ->query('SET SESSION AUTHORIZATION bob; SET search_path = fuzz, closed');
$sessions[$_]->send("SET client_min_messages = error; CALL fuzz.drive($_)")
  for 0, 1;
is($sessions[$_]->result, '', "session $_ has got through") for 0, 1;
$_->quit for @sessions;

is($node->safe_psql('postgres', 'SELECT count(*) FROM fuzz.answer'),
	$calls, 'every call has an answer');
diag(
	$node->safe_psql(
		'postgres', q{
		SELECT string_agg(state || ': ' || n, ', ' ORDER BY n DESC)
		FROM (SELECT state, count(*) n FROM fuzz.answer GROUP BY 1) s}));

# Errors that are about the call, and those that the callbacks raise
# themselves.  Not among them: 42601, a syntax error, which would mean that what
# we wrote for the server was not what we meant, unless a type of the server
# says so of the value of an argument.
my $proper =
  q{(0A000|22000|2200.|2201.|2202.|2203.|22P0.|23502|23514|3F000|40P01|42501|42602|42622|42704|42710|42725|42804|42809|42846|42883|42P01|42P02|42P18|42P38|54000|54001|54023|55000|P0001|2D000)};
is( $node->safe_psql(
		'postgres', qq{
		SELECT state, i.kind, message, left(i.a::text, 500) FROM fuzz.answer JOIN fuzz.input i USING (n)
		WHERE state <> '00000' AND state !~ '^$proper\$'
			AND NOT (state = '42601' AND of_value) ORDER BY n LIMIT 5}),
	'',
	'every error is about the call');
cmp_ok(
	$node->safe_psql(
		'postgres',
		q{SELECT 100 * count(*) FILTER (WHERE state = '00000') / count(*) FROM fuzz.answer}
	),
	'>', 15,
	'a fair share of the calls succeeds');
cmp_ok(
	$node->safe_psql('postgres', q{SELECT runs_ok FROM taskshed.status}),
	'>',
	$calls / 200,
	'many tasks have run');
cmp_ok(
	$node->safe_psql('postgres', q{SELECT runs_failed FROM taskshed.status}),
	'>', 0, 'some have failed');

# What is due is done.
await(
	$node, q{
	SELECT count(*) = 0 FROM taskshed.tasks
	WHERE state = 'due' AND run_at < now() - interval '10 s' AND run_type = 'once'},
	'what is due has run');
is( $node->safe_psql(
		'postgres', qq{
		SELECT last_sqlstate, callback, last_error FROM taskshed.tasks
		WHERE last_sqlstate !~ '^($proper|40001)\$'
			AND NOT (last_sqlstate = '42601' AND last_error LIKE 'improper %') ORDER BY task_id LIMIT 5}
	),
	'',
	'every run that failed did so for a reason of its own');

# ------------------------------------------------------------------------
# What is left

is($node->safe_psql('postgres', 'SELECT count(*) FROM fuzz.marker'),
	'0', 'no text was executed');
is( $node->safe_psql(
		'postgres', q{
		SELECT t.id, a.id FROM _taskshed.task t FULL JOIN _taskshed.alarm a USING (id)
		WHERE t.id IS NULL OR a.id IS NULL OR t.owner <> a.owner}),
	'',
	'each task has an alarm, and each alarm a task');
is( $node->safe_psql(
		'postgres', q{
		SELECT 'task', id::text FROM _taskshed.task GROUP BY id HAVING count(*) > 1
		UNION ALL SELECT 'alarm', id::text FROM _taskshed.alarm GROUP BY id HAVING count(*) > 1
		UNION ALL SELECT 'task_id', task_id FROM _taskshed.task GROUP BY owner, task_id HAVING count(*) > 1}
	),
	'',
	'none of them twice');
is( $node->safe_psql(
		'postgres', q{
		SELECT * FROM _taskshed.task
		WHERE NOT (length(task_id) BETWEEN 1 AND 255 AND coalesce(length(group_id) BETWEEN 1 AND 255, true)
			AND jsonb_typeof(kwargs) = 'object' AND run_type IN ('once', 'recurring')
			AND (every IS NULL OR run_type = 'recurring') AND catch_up IN ('coalesce', 'all', 'skip')
			AND id <= (SELECT last_value FROM _taskshed.task_seq) AND created_at <= clock_timestamp()
			AND EXISTS (SELECT FROM pg_roles r WHERE r.oid = owner AND rolname = owner_name AND (rolcanlogin OR current_setting('server_version_num')::int >= 170000))
			AND (now() AT TIME ZONE timezone) IS NOT NULL)}),
	'',
	'all values of tasks are as they must be');
is( $node->safe_psql(
		'postgres', q{
		SELECT state, t.* FROM taskshed.tasks t WHERE run_type = 'recurring' AND every IS NULL AND schedule IS NULL
			AND state NOT IN ('waiting', 'paused', 'running', 'failed')}),
	'',
	'those that recur without times wait for others');
is( $node->safe_psql(
		'postgres', q{
		SELECT * FROM _taskshed.alarm
		WHERE NOT (isfinite(run_at) AND isfinite(anchor) AND revision > 0 AND run_count >= 0 AND attempt >= 0
			AND failures_in_row BETWEEN 0 AND run_count
			AND coalesce(last_status IN ('succeeded', 'failed', 'missed'), true)
			AND (last_sqlstate IS NULL) = (coalesce(last_status, '') <> 'failed'))}),
	'',
	'all values of alarms are as they must be');
is( $node->safe_psql(
		'postgres', q{
		SELECT c.conname, count(*) FROM pg_constraint c
		WHERE conrelid IN ('_taskshed.task'::regclass, '_taskshed.callback'::regclass) AND NOT convalidated GROUP BY 1}
	),
	'',
	'constraints are valid');
foreach my $constraint (
	split(
		/\n/,
		$node->safe_psql(
			'postgres', q{
			SELECT format('SELECT count(*) FROM %s WHERE NOT (%s)', conrelid::regclass, pg_get_expr(conbin, conrelid))
			FROM pg_constraint WHERE connamespace = '_taskshed'::regnamespace AND contype = 'c'}
		)))
{
	is($node->safe_psql('postgres', $constraint), '0', $constraint);
}
SKIP:
{
	skip 'there is no amcheck',
	  1
	  unless $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'}
	  );
	$node->safe_psql('postgres', 'CREATE EXTENSION amcheck');
	is( $node->safe_psql(
			'postgres', q{
			SELECT count(bt_index_parent_check(indexrelid, true)) > 0 FROM pg_index
			WHERE indrelid IN ('_taskshed.task'::regclass, '_taskshed.alarm'::regclass, '_taskshed.edge'::regclass, '_taskshed.request'::regclass, '_taskshed.callback'::regclass)}
		),
		't',
		'indexes agree with their tables');
}

# The scheduler is up and has not lost its way.
my ($bob) = (session($node));
$bob->query('SET SESSION AUTHORIZATION bob');
$node->safe_psql('postgres',
	q{SELECT taskshed.remove_all_tasks(owner => rolname) FROM pg_roles WHERE rolname !~ '^pg_'}
);
$bob->query(
	q{SELECT taskshed.add_task('public.note', kwargs => '{"what": "after"}')}
);
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'after'},
	'a task still runs');
$bob->quit;
await($node, q{SELECT count(*) = 0 FROM taskshed.tasks}, 'no task is left');

my $log = slurp_file($node->logfile);
is( join("\n",
		grep { /TRAP|PANIC|was terminated by signal/ } split(/\n/, $log)),
	'',
	'no crash');
is(join("\n", grep { /\] [a-z ]+ XX\d\d\d / } split(/\n/, $log)),
	'', 'no internal error');
$node->stop;
done_testing();
