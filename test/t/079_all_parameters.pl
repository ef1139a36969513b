
# Every parameter of add_task, as the catalog has them: what is given is what the
# view tasks shows, whichever function it is given to; left out or NULL it is the
# default; it is bounded, and in a dump.  A parameter that is added needs nothing
# here, unless no value of its type will do, or other tasks are needed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('all_parameters');

query(
	q{
CREATE ROLE app LOGIN;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

-- What is given for a parameter
CREATE TABLE params AS
SELECT name, n, format_type(type, NULL) AS type, coalesce(
	CASE name WHEN 'callback' THEN 'public.nothing' WHEN 'on_failure' THEN 'public.nothing' WHEN 'run_type' THEN 'recurring' WHEN 'catch_up' THEN 'all'
		WHEN 'schedule' THEN '0 4 * * *' WHEN 'timezone' THEN 'Asia/Tokyo' WHEN 'history' THEN 'errors' END,
	CASE format_type(type, NULL) WHEN 'text' THEN 'some words' WHEN 'name' THEN 'app' WHEN 'integer' THEN '7'
		WHEN 'double precision' THEN '7.5' WHEN 'boolean' THEN 'true' WHEN 'interval' THEN '7 minutes'
		WHEN 'timestamp with time zone' THEN '2100-06-01' WHEN 'jsonb' THEN '{}' WHEN 'text[]' THEN '{some,words}' END) AS value
FROM pg_proc, unnest(proargnames, proargtypes::oid[]) WITH ORDINALITY AS p (name, type, n)
WHERE oid = 'taskshed.add_task'::regproc;

-- The keys of a task, which are parameters
CREATE FUNCTION keys(VARIADIC names text[]) RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce(jsonb_object_agg(name, CASE type WHEN 'jsonb' THEN value::jsonb ELSE to_jsonb(value) END), '{}')
	FROM params WHERE name = ANY (names) $$;
CREATE FUNCTION call(keys jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT format('SELECT taskshed.add_task(%s)', string_agg(format('%I => %L', key, value), ', ')) FROM jsonb_each_text(keys) $$;

-- How a call ends
CREATE FUNCTION tried(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- What the view says of the only task, and whether that is what was given
CREATE FUNCTION task() RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(t) - '{task_id,created_at,run_at,state}'::text[] FROM taskshed.tasks t $$;
CREATE FUNCTION is_shown(param params) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	shown boolean;
BEGIN
	EXECUTE format('SELECT %L::%s = (SELECT %I FROM taskshed.tasks)', param.value, param.type, param.name) INTO shown;
	RETURN shown;
END $$;

CREATE TABLE answers (n bigint, name text, added text, problem text);
CREATE PROCEDURE try(param params) LANGUAGE plpgsql AS $$
DECLARE
	base jsonb := keys('callback', 'task_id', CASE param.name WHEN 'schedule' THEN NULL ELSE 'every' END) - param.name;
	full_keys jsonb := base || keys(param.name);
	-- what says how a task is to be added, and not what it is
	shown boolean := param.name NOT IN ('paused', 'replace_existing', 'validate');
	-- what a task keeps that is replaced
	kept boolean := param.name IN ('run_at', 'paused', 'timezone', 'owner', 'task_id', 'callback');
	updates boolean := param.name NOT IN ('callback', 'task_id', 'owner', 'replace_existing');
	-- what a recurring task cannot do without
	needed boolean := param.name IN ('run_at', 'every', 'schedule');
	update_sql text := format('SELECT taskshed.update_tasks(%L, array[%L])', keys(param.name), base ->> 'task_id');
	reset_sql text := format('SELECT taskshed.update_tasks(%L, array[%L])', jsonb_build_object(param.name, NULL), base ->> 'task_id');
	plain jsonb;
	added text;
	problem text;
BEGIN
	-- (without callback or task_id there is none)
	PERFORM tried(call(base));
	plain := task();
	PERFORM count(taskshed.remove_all_tasks(r::name)) FROM unnest('{postgres,app}'::text[]) r;
	added := tried(call(full_keys));
	IF added = '0A000' THEN
		-- not there yet, wherever it is given; NULL is what it is without
		problem := CASE WHEN tried(format('SELECT taskshed.add_tasks(%L)', jsonb_build_array(full_keys))) <> '0A000' THEN 'add_tasks takes it'
			WHEN task() IS NOT NULL THEN 'a task is there'
			WHEN tried(call(base || jsonb_build_object(param.name, NULL))) <> 'ok' OR task() IS DISTINCT FROM plain THEN 'NULL is not the default'
			WHEN tried(update_sql) <> '0A000' THEN 'update_tasks takes it'
			WHEN tried(reset_sql) <> 'ok' OR task() IS DISTINCT FROM plain THEN 'null is not the default' END;
	ELSIF added <> 'ok' THEN
		problem := 'it is refused';
	ELSE
		problem := CASE WHEN shown AND is_shown(param) IS NOT TRUE THEN 'it is not shown' END;
		IF NOT kept THEN
			problem := coalesce(problem, CASE WHEN tried(call(base)) <> 'ok' OR task() IS DISTINCT FROM plain THEN 'left out it is not the default' END);
		END IF;
		PERFORM count(taskshed.remove_all_tasks(r::name)) FROM unnest('{postgres,app}'::text[]) r;
		problem := coalesce(problem, CASE WHEN tried(format('SELECT taskshed.add_tasks(%L)', jsonb_build_array(full_keys))) <> 'ok' THEN 'add_tasks refuses it'
			WHEN shown AND is_shown(param) IS NOT TRUE THEN 'add_tasks does not take it' END);
		PERFORM count(taskshed.remove_all_tasks(r::name)) FROM unnest('{postgres,app}'::text[]) r;
		IF updates THEN
			PERFORM tried(call(base || keys('task_id') || CASE param.name WHEN 'schedule' THEN keys('every') ELSE '{}' END));
			problem := coalesce(problem, CASE WHEN tried(update_sql) <> 'ok' THEN 'update_tasks refuses it'
				WHEN shown AND is_shown(param) IS NOT TRUE THEN 'update_tasks does not take it'
				WHEN NOT needed AND (tried(reset_sql) <> 'ok' OR task() IS DISTINCT FROM plain) THEN 'null is not the default'
				WHEN needed AND tried(reset_sql) <> '22023' THEN 'null is taken' END);
		ELSE
			problem := coalesce(problem, CASE WHEN tried(update_sql) <> '22023' THEN 'update_tasks takes it' END);
		END IF;
	END IF;
	PERFORM count(taskshed.remove_all_tasks(r::name)) FROM unnest('{postgres,app}'::text[]) r;
	IF param.type = 'text' AND tried(call(full_keys || jsonb_build_object(param.name, repeat('x', 1000000)))) NOT IN ('22001', '22023', '42883', '0A000') THEN
		problem := coalesce(problem, 'it has no bound');
	END IF;
	PERFORM count(taskshed.remove_all_tasks(r::name)) FROM unnest('{postgres,app}'::text[]) r;
	INSERT INTO answers VALUES (param.n, param.name, added, problem);
END $$;
});

# Each by itself
query(
	q{SET client_min_messages = error; DO $$ DECLARE param params; BEGIN FOR param IN SELECT * FROM params WHERE name !~ '^(after|before)' ORDER BY n LOOP CALL try(param); END LOOP; END $$}
);
foreach my $answer (split /\n/,
	query('SELECT name, added, problem FROM answers ORDER BY n'))
{
	my ($name, $added, $problem) = split /\|/, $answer, -1;

	is($problem, '',
		$added eq '0A000'
		? "$name: not supported yet"
		: "$name: what is given is what is shown");
}
is( query(
		q{SELECT string_agg(name, ' ' ORDER BY n) FROM answers WHERE added = '0A000'}
	),
	'queue queue_key priority debounce debounce_max throttle spread except_on keep',
	'those that are not supported yet');

# Those that join tasks: what is given, and what the view says then
query(
	q{
CREATE FUNCTION joined(keys jsonb, by_add_tasks boolean, condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	child jsonb := '{"callback": "public.nothing", "run_at": "2100-01-01", "task_id": "child"}' || keys;
	answer text;
	holds boolean;
BEGIN
	PERFORM taskshed.remove_all_tasks(),
		taskshed.add_task('public.nothing', '2100-01-01', task_id => 'parent', group_id => 'parents'),
		taskshed.add_task('public.nothing', task_id => 'waits', after => '{parent}');
	answer := tried(CASE WHEN by_add_tasks THEN format('SELECT taskshed.add_tasks(%L)', jsonb_build_array(child)) ELSE call(child) END);
	EXECUTE 'SELECT ' || condition || $q$ FROM taskshed.tasks WHERE task_id = 'child'$q$ INTO holds;
	RETURN answer || CASE WHEN holds THEN '' ELSE ', but not what was given' END;
END $$}
);
foreach my $case (
	[
		'after',
		'"after": "{parent}"',
		q{state = 'waiting' AND after = '{parent}' AND after_status IS NULL}
	],
	[
		'after_group',
		'"after_group": "parents"',
		q{state = 'waiting' AND after = '{parent}' AND after_status IS NULL}
	],
	[
		'after_status',
		'"after": "{parent}", "after_status": "ended"',
		q{state = 'waiting' AND after_status = 'ended'}
	],
	[
		'before',
		'"before": "{waits}"',
		q{state = 'scheduled' AND (taskshed.fetch_task('waits')).after = '{parent,child}'}
	])
{
	my ($name, $keys, $condition) = @$case;
	my $nothing =
	  q{state = 'scheduled' AND after IS NULL AND after_status IS NULL};

	is( query(
			qq{SELECT joined('{$keys}', false, \$c\$$condition\$c\$), joined('{$keys}', true, \$c\$$condition\$c\$),
			joined('{"$name": null}', false, \$c\$$nothing\$c\$), joined('{"$name": null}', true, \$c\$$nothing\$c\$)}
		),
		'ok|ok|ok|ok',
		"$name: what is given is what is shown");
	is( query(
			qq{SELECT tried(format('SELECT taskshed.update_tasks(%L, array[%L])', keys, 'child'))
			FROM unnest(array['{$keys}', '{"$name": null}']) AS keys}
		),
		"22023\n22023",
		"$name: update_tasks refuses it");
}
is( query(
		q{SELECT tried(call(jsonb_build_object('callback', 'nothing', 'after_group', repeat('x', 1000000))))}
	),
	'22001',
	'after_group: it has a bound');
query('SELECT taskshed.remove_all_tasks()');

# None given, as a driver does it that sends them all
my ($types, $nulls) = split /\|/,
  query(
	q{SELECT string_agg(type, ', ' ORDER BY n), string_agg('NULL', ', ') FILTER (WHERE n > 1) FROM params}
  );
my $numbers = join ', ',
  map { "\$$_" } 1 .. query('SELECT count(*) FROM params');
is( query(
		qq{BEGIN; PREPARE driver($types) AS SELECT taskshed.add_task($numbers) IS NOT NULL;
		EXECUTE driver('nothing', $nulls);
		CREATE TEMP TABLE by_driver AS SELECT task();
		SELECT taskshed.remove_all_tasks();
		SELECT taskshed.add_task('nothing') IS NOT NULL;
		SELECT task() = (TABLE by_driver); ROLLBACK}
	),
	"t\n1\nt\nt",
	'a prepared statement with NULL for all');

# All at once, dumped and restored
query(
	q{DO $$ BEGIN EXECUTE (SELECT call(keys(VARIADIC array_agg(name))) FROM answers WHERE added = 'ok' AND name <> 'every'); END $$}
);
is( query(
		q{SELECT string_agg(p.name, ' ') FROM params p, answers a, LATERAL (SELECT task() || (SELECT to_jsonb(t) FROM taskshed.tasks t)) t (task)
		WHERE a.name = p.name AND a.added = 'ok' AND t.task ->> p.name IS NULL AND
			p.name NOT IN ('every', 'paused', 'replace_existing', 'validate')}
	),
	'',
	'a task with everything');
query(
	q{CREATE FUNCTION add_atomically() RETURNS text LANGUAGE sql BEGIN ATOMIC
		SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'atomic', description => 'some words');
	END}
);
my $dump = $node->basedir . '/dump';
my $task = q{SELECT to_jsonb(t) FROM taskshed.tasks t};
my $was  = query($task);
$node->command_ok([ 'pg_dump', '-Fc', '--file', $dump, 'postgres' ],
	'dumped');
query('CREATE DATABASE restored');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '--dbname', 'restored', $dump ],
	'restored');
is($node->safe_psql('restored', $task), $was, 'it is what it was');
is( $node->safe_psql(
		'restored',
		q{SET client_min_messages = error; SELECT add_atomically(), (taskshed.fetch_task('atomic')).description}
	),
	'atomic|some words',
	'so is a function that has one in its parsed body');

$node->stop;
done_testing();
