
# What add_task costs.
#
# The limit is writing the very same rows into tables of the same shape, with
# the same indexes and constraints, by INSERT: one client with prepared
# statements, one transaction a task; then 100,000 in one transaction.
#
# The strictest limit for single calls is one statement that writes both rows,
# because it takes one round trip, as add_task does; that is what the goal is
# compared with.  BEGIN, two INSERTs and COMMIT, as an application would do it,
# is shown beside.
#
# taskshed checks what it is given and not once more by the tables' CHECKs, which
# INSERT does: in bulk the limit is shown without them, too.  What is compared with
# addJobs of graphile-worker sends the tasks from the client, as that does.

package Scheduling;

use strict;
use warnings;
use utf8;

use Bench;
use Contestants;
use Server;
use Time::HiRes qw(time);

my $call =
  q{taskshed.add_task('public.noop', run_at => now() + interval '1 day', kwargs => '{"n": 1}')};

sub measure
{
	my $database = database('taskshed');

	enabled($database, 1);
	prepare($database);
	singly($database);
	in_bulk($database, $size{add_bulk});
	return;
}

# Makes the tables of the same shape, and scripts for pgbench that insert a row
# that add_task has made, with a new key.
sub prepare
{
	my ($database) = @_;

	sql($database, q{
		CREATE SCHEMA bare;
		CREATE TABLE bare.task_unchecked (LIKE _taskshed.task INCLUDING ALL EXCLUDING CONSTRAINTS);
		CREATE TABLE bare.alarm_unchecked (LIKE _taskshed.alarm INCLUDING ALL EXCLUDING CONSTRAINTS);
		CREATE TABLE bare.task (LIKE _taskshed.task INCLUDING ALL);
		CREATE TABLE bare.alarm (LIKE _taskshed.alarm INCLUDING ALL);
		CREATE TABLE bare.tasks_to_add (LIKE _taskshed.task);
		CREATE TABLE bare.alarms_to_add (LIKE _taskshed.alarm);
		CREATE SEQUENCE bare.seq;
		GRANT ALL ON SCHEMA bare TO bench;
		GRANT ALL ON ALL TABLES IN SCHEMA bare TO bench;
		GRANT ALL ON SEQUENCE bare.seq TO bench});
	sql($database, "SELECT $call", 'bench');

	my %insert;
	foreach my $table ('task', 'alarm')
	{
		($insert{$table}) = sql(
			$database, qq{
			SELECT format('INSERT INTO bare.$table VALUES (%s)', string_agg(CASE a.attname
				WHEN 'id' THEN '\@id\@'
				WHEN 'task_id' THEN 'replace(gen_random_uuid()::text, ''-'', '''')'
				WHEN 'created_at' THEN 'clock_timestamp()'
				WHEN 'run_at' THEN 'now() + interval ''1 day'''
				WHEN 'scheduled_at' THEN 'now() + interval ''1 day'''
				WHEN 'anchor' THEN 'now() + interval ''1 day'''
				ELSE format('%L::%s', row.value, format_type(a.atttypid, a.atttypmod)) END,
				', ' ORDER BY a.attnum))
			FROM _taskshed.$table t, jsonb_each_text(to_jsonb(t)) AS row (key, value)
				JOIN pg_attribute a ON a.attrelid = '_taskshed.$table'::regclass AND a.attname = row.key}
		);
	}
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');

	my ($next, $same) = ("nextval('bare.seq')", "currval('bare.seq')");
	(my $task  = $insert{task})  =~ s/\@id\@/$next/;
	(my $alarm = $insert{alarm}) =~ s/\@id\@/$same/;
	(my $both  = "WITH t AS ($task RETURNING id) $alarm") =~
	  s/\Q$same\E/(SELECT id FROM t)/;
	script(add_task => "SELECT $call;");
	script(one      => "$both;");
	script(two      => "BEGIN;\n$task;\n$alarm;\nCOMMIT;");
	return;
}

sub file_of { return "$ENV{TMPDIR}/$_[0].pgbench"; }

sub script
{
	my ($name, $sql) = @_;

	open my $file, '>', file_of($name) or die "$name: $!\n";
	print $file "$sql\n";
	close $file;
	return;
}

sub pgbench
{
	my ($database, $name) = @_;

	sql($database,
		'SELECT taskshed.remove_all_tasks(); DELETE FROM bare.task; DELETE FROM bare.alarm',
		'bench');
	settle($database);
	my $output =
	  `pgbench -n -M prepared -c 1 -T $size{add_s} -U bench -f @{[ file_of($name) ]} $database 2>&1`;
	$output =~ /^tps = ([0-9.]+)/m or die "pgbench: $output\n";
	return $1;
}

sub singly
{
	my ($database) = @_;
	my %common = (
		part => 'scheduling',
		what => 'one call a transaction, one client',
		unit => 'tasks/s');
	my $figures = alternate(
		map {
			my $name = $_;
			$_ => sub { pgbench($database, $name) }
		} qw(add_task one two));

	row(%common,
		who        => 'taskshed, add_task',
		values     => $figures->{add_task},
		ratio      => ratios($figures->{add_task}, $figures->{one}),
		to         => 'the limit',
		ratio_goal => [ '>=', 0.85 ]);
	row(%common,
		who    => 'limit: one statement that inserts both rows',
		values => $figures->{one});
	row(%common,
		who    => 'BEGIN, two INSERTs, COMMIT',
		values => $figures->{two});
	return;
}

# Seconds of a statement, in a transaction with nothing in the tables.
sub timed
{
	my ($database, $n, $sql) = @_;

	sql($database,
		'SELECT taskshed.remove_all_tasks(); DELETE FROM bare.task; DELETE FROM bare.alarm',
		'bench');
	settle($database);
	my $start = time();
	sql($database, $sql, 'bench');
	return $n / (time() - $start);
}

sub in_bulk
{
	my ($database, $n) = @_;
	my $add =
	  qq{SELECT count(taskshed.add_task('public.noop', run_at => now() + interval '1 day',
		kwargs => jsonb_build_object('n', i))) FROM generate_series(1, $n) AS i};

	# The rows for the limit, and the array for add_tasks, are there before.
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
	sql($database, $add,                                 'bench');
	sql($database, qq{
		INSERT INTO bare.tasks_to_add SELECT * FROM _taskshed.task;
		INSERT INTO bare.alarms_to_add SELECT * FROM _taskshed.alarm;
		CREATE TABLE bare.batch AS SELECT jsonb_agg(jsonb_build_object('callback', 'public.noop',
			'run_at', now() + interval '1 day', 'kwargs', jsonb_build_object('n', i))) AS batch
			FROM generate_series(1, $n) AS i;
		GRANT SELECT ON bare.batch TO bench});
	my $batch = value($database, 'SELECT batch FROM bare.batch');

	my $figures = alternate(
		add_task  => sub { timed($database, $n, $add) },
		add_tasks => sub {
			timed($database, $n,
				'SELECT cardinality(taskshed.add_tasks(batch)) FROM bare.batch'
			);
		},
		sent => sub {
			timed($database, $n,
				"SELECT cardinality(taskshed.add_tasks('$batch'))");
		},
		unchecked => sub {
			sql($database,
				'TRUNCATE bare.task_unchecked, bare.alarm_unchecked');
			timed(
				$database, $n, q{
				BEGIN;
				INSERT INTO bare.task_unchecked SELECT * FROM bare.tasks_to_add;
				INSERT INTO bare.alarm_unchecked SELECT * FROM bare.alarms_to_add;
				COMMIT});
		},
		limit => sub {
			timed(
				$database, $n, q{
				BEGIN;
				INSERT INTO bare.task SELECT * FROM bare.tasks_to_add;
				INSERT INTO bare.alarm SELECT * FROM bare.alarms_to_add;
				COMMIT});
		},
		'graphile-worker, addJobs' =>
		  sub { rate(peer('graphile', 'add', n => $n)) },
		'pg-boss, insert' =>
		  sub { rate(peer('pgboss', 'add', n => $n, best => 1)) });
	my %common = (
		part  => 'scheduling',
		what  => "$n in one transaction",
		unit  => 'tasks/s',
		chart => "$n in one transaction");
	my %goal = (add_task => 0.5, add_tasks => 0.6);
	my %who  = (
		add_task  => 'taskshed, add_task … FROM generate_series',
		add_tasks => 'taskshed, add_tasks(jsonb)',
		sent      => 'taskshed, add_tasks(jsonb), sent by the client');
	my $peer = $figures->{'graphile-worker, addJobs'};

	foreach my $call ('add_task', 'add_tasks')
	{
		row(%common,
			who        => $who{$call},
			values     => $figures->{$call},
			ratio      => ratios($figures->{$call}, $figures->{limit}),
			to         => 'the limit',
			ratio_goal => [ '>=', $goal{$call} ]);
	}
	row(%common,
		who    => 'limit: INSERT … SELECT into both tables',
		values => $figures->{limit});
	row(%common,
		who    => 'limit: the same, tables without CHECKs',
		values => $figures->{unchecked},
		ratio  => ratios($figures->{unchecked}, $figures->{limit}),
		to     => 'the limit');
	row(%common,
		who    => $who{sent},
		values => $figures->{sent},
		ratio  => ratios($figures->{sent}, $figures->{add_tasks}),
		to     => 'add_tasks');
	foreach my $who (grep { /-/ } sort keys %$figures)
	{
		row(%common,
			who    => $who,
			values => $figures->{$who},
			ratio  => ratios($figures->{$who}, $figures->{sent}),
			to     => 'add_tasks, sent');
	}
	foreach my $call ('add_task', 'sent')
	{
		row(part   => 'scheduling',
			what   => $common{what},
			who    => "$who{$call} / graphile-worker's addJobs",
			values => ref $peer ? ratios($figures->{$call}, $peer) : $peer,
			unit   => '×',
			goal   => [ '>', 1 ]);
	}
	sql($database, 'DROP SCHEMA bare CASCADE');
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
	return;
}

sub rate
{
	my ($result) = @_;

	return $result->{done} / $result->{seconds};
}

1;
