
# Who is measured: taskshed, the plain loop that is the limit, and the peers.
#
# A drain is the time that many due one-off tasks take, all there before the
# first may start.  Everybody's tasks call the same, and that they have all had
# their effect exactly once is checked each time.

package Contestants;

use strict;
use warnings;

use Bench;
use Exporter 'import';
use IPC::Open2;
use IO::Handle;
use JSON::PP;
use List::Util qw(min);
use Server;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  add_many add_tasks_ahead check_effects drain drain_cron drain_peer drain_plain
  drain_recurring enabled lag_ahead lag_first lag_now no_workers peer runs_ended start_peer
);

my $serial = 0;


# taskshed

# Switches taskshed on or off in all databases, and waits until it is in this
# one.
sub enabled
{
	my ($database, $on) = @_;

	configure('taskshed.enabled' => $on ? undef : 'off');
	await(
		$database,
		"SELECT state = '@{[ $on ? 'active' : 'disabled' ]}'
		FROM taskshed.status WHERE database = current_database()");
	return;
}

# Ends all workers, so that the next task finds none.
sub no_workers
{
	await(
		'postgres', q{
		SELECT count(pg_terminate_backend(pid)) = 0
		FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}, 60, 0.05);
	return;
}

# SQL for how many runs have ended in the database.
sub runs_ended
{
	return q{(SELECT runs_ok + runs_failed FROM taskshed.status
		WHERE database = current_database())};
}

# Adds one-off tasks in transactions of 100,000.  Parameters as SQL, in which i
# is the number of the task.
sub add_many
{
	my ($database, $n, $callback, $run_at, $group) = @_;

	for (my $from = 0; $from < $n; $from += 100_000)
	{
		my $to = min($from + 100_000, $n) - 1;

		sql($database, qq{
			SELECT count(taskshed.add_task('public.$callback', run_at => $run_at,
				kwargs => jsonb_build_object('n', i), group_id => '$group'))
			FROM generate_series($from, $to) AS i}, 'bench');
	}
	return;
}

# Makes sure that there are so many tasks in a database that are due in a day
# and later.
my %ahead;

sub add_tasks_ahead
{
	my ($database, $n) = @_;
	my $more = $n - ($ahead{$database} || 0);

	database($database);
	return if $more <= 0;
	note("  adding $more tasks that are due much later");
	add_many($database, $more, 'noop',
		q{now() + interval '1 day' + i * interval '10 ms'}, 'ahead');
	$ahead{$database} += $more;
	settle($database);
	return;
}

# Returns done; seconds, from the moment at which the tasks may start, with
# no worker there, to the end of the last run; rate; cpu10k, CPU seconds of the
# whole server for 10,000 tasks; xids, transaction ids that were used for each
# task; first and last: tasks a second in the first and in the last tenth.
sub drain
{
	my ($database, $n, $callback) = @_;
	my $group = 'g' . ++$serial;
	my $ended = runs_ended();

	enabled($database, 0);
	no_workers();
	sql($database, 'TRUNCATE ledger');
	add_many($database, $n, $callback, 'clock_timestamp()', $group);
	settle($database);

	my $before = value($database, "SELECT $ended");
	my $xid    = next_xid($database);
	my $cpu    = server_cpu();
	sql('postgres', 'ALTER SYSTEM RESET taskshed.enabled');
	my ($start) = split /\|/,
	  value('postgres',
		'SELECT extract(epoch FROM clock_timestamp()), pg_reload_conf()');
	await($database, "SELECT $ended - $before >= $n", 3600);
	$cpu = server_cpu() - $cpu;
	my $xids = next_xid($database) - $xid;

	my ($runs, $first, $tenth, $nine, $end) = split /\|/, value(
		$database, qq{
		SELECT count(*), extract(epoch FROM min(started_at)),
			extract(epoch FROM percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM max(finished_at))
		FROM taskshed.runs WHERE group_id = '$group' AND status = 'succeeded'});
	die "$runs runs of $n tasks\n" if $runs != $n;
	check_effects($database, $n)   if $callback eq 'effect';
	return figures(
		$n, $end - $start, $cpu,
		xids  => $xids / $n,
		first => $n / 10 / ($tenth - $first),
		last  => $n / 10 / ($end - $nine));
}

sub next_xid
{
	my ($database) = @_;

	return value($database, 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
}

# One recurring task whose times have all been due for long: it runs n times in
# a row.  Returns what drain() does.
sub drain_recurring
{
	my ($database, $n) = @_;
	my $id    = 'r' . ++$serial;
	my $ended = runs_ended();

	enabled($database, 0);
	no_workers();
	sql($database, qq{
		SELECT taskshed.add_task('public.noop', kwargs => '{"n": 1}', task_id => '$id',
			run_at => clock_timestamp() - interval '1 hour', every => '1 us', catch_up => 'all')},
		'bench');
	settle($database);

	my $before = value($database, "SELECT $ended");
	my $cpu    = server_cpu();
	enabled($database, 1);
	await($database, "SELECT $ended - $before >= $n", 3600);
	$cpu = server_cpu() - $cpu;
	sql($database, "SELECT taskshed.remove_task('$id')", 'bench');
	my ($runs, $first, $tenth, $nine, $end) = split /\|/, value(
		$database, qq{
		SELECT count(*), extract(epoch FROM min(started_at)),
			extract(epoch FROM percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM max(finished_at))
		FROM (SELECT * FROM taskshed.runs WHERE task_id = '$id' AND status = 'succeeded'
			ORDER BY scheduled_at LIMIT $n) AS r});
	die "$runs runs, not $n\n" if $runs != $n;
	return figures(
		$n, $end - $first, $cpu,
		first => $n / 10 / ($tenth - $first),
		last  => $n / 10 / ($end - $nine));
}

sub figures
{
	my ($done, $seconds, $cpu, %more) = @_;

	return {
		done    => $done,
		seconds => $seconds,
		rate    => $done / $seconds,
		cpu10k  => $cpu / $done * 10_000,
		%more
	};
}

# Each effect once.
sub check_effects
{
	my ($database, $n) = @_;
	my $effects = value($database,
		q{SELECT count(*) || '/' || count(DISTINCT n) FROM ledger});

	die "effects/different ones: $effects, but $n tasks\n"
	  if $effects ne "$n/$n";
	return;
}

# Lags of taskshed, in milliseconds.

# SQL for n times over so many seconds, evenly, the first in a second.
sub spread
{
	my ($n, $seconds) = @_;

	return "now() + interval '1 s' + i * interval '1 s' * $seconds / $n";
}

# New roles that may have tasks.
sub roles
{
	my ($database, $n) = @_;
	my @names = map { 'lag' . ++$serial } 1 .. $n;

	sql($database,
		"CREATE ROLE $_ LOGIN; GRANT USAGE ON SCHEMA taskshed TO $_")
	  foreach @names;
	return @names;
}

# Of tasks that are added ahead of time, for a role that never had a worker
# unless one is given.
sub lag_ahead
{
	my ($database, $n, $seconds, $role) = @_;
	my $run_at = spread($n, $seconds);

	($role) = roles($database, 1) if !defined $role;
	sql($database, 'TRUNCATE ledger');
	sql($database, qq{
		SELECT count(taskshed.add_task('public.late', run_at => $run_at, owner => '$role',
			kwargs => jsonb_build_object('n', i, 'planned', $run_at)))
		FROM generate_series(0, $n - 1) AS i});
	return lags($database, $n, $seconds + 60, 'started - planned');
}

# Of the first run of each of n roles, half a second apart, added ahead of time.
sub lag_first
{
	my ($database, $n) = @_;
	my $run_at = spread($n, $n / 2);
	my $roles  = join ',', roles($database, $n);

	sql($database, 'TRUNCATE ledger');
	sql($database, qq{
		SELECT count(taskshed.add_task('public.late', run_at => $run_at,
			owner => (string_to_array('$roles', ','))[i + 1]::text,
			kwargs => jsonb_build_object('n', i, 'planned', $run_at)))
		FROM generate_series(0, $n - 1) AS i});
	return lags($database, $n, $n / 2 + 60, 'started - planned');
}

# Of tasks that are added for now.  cold: each for a role that has no worker.
sub lag_now
{
	my ($database, $n, $seconds, $cold) = @_;
	my $pause  = 1000 * $seconds / $n;
	my $prefix = 'null';

	if ($cold)
	{
		my $name = 'cold' . ++$serial . '_';

		sql($database, qq{
			SELECT format('CREATE ROLE %1\$s LOGIN; GRANT USAGE ON SCHEMA taskshed TO %1\$s', '$name' || i)
			FROM generate_series(0, $n - 1) AS i \\gexec
			SELECT 1});
		$prefix = "'$name'";
	}
	no_workers() if $cold;
	sql($database, 'TRUNCATE ledger, committed');
	sql($database, 'SET synchronous_commit = off');
	sql($database, "CALL add_for_now($n, $pause, $prefix)");
	sql($database, 'RESET synchronous_commit');
	return lags($database, $n, 60,
		'started - (SELECT at FROM committed c WHERE c.n = ledger.n)');
}

# Waits for n lines of the ledger, and returns their lags.
sub lags
{
	my ($database, $n, $patience, $lag) = @_;

	await($database,
		"SELECT count(*) >= $n FROM ledger WHERE started IS NOT NULL",
		$patience, 0.5);
	check_effects($database, $n);
	return [
		sql($database,
			"SELECT extract(epoch FROM $lag) * 1000 FROM ledger WHERE started IS NOT NULL"
		)
	];
}


# The limit: as many sessions as there are cores take the same rows in batches
# of a hundred, call the same function and delete, one transaction a batch;
# callbacks.sql has both forms, loop and set.
sub drain_plain
{
	my ($n, $callback, $form) = @_;
	my $database = database('taskshed_plain');
	my @sessions = map { session($database, undef, $_) } 1 .. $cores;

	enabled($database, 0);
	sql($database, 'TRUNCATE plain');
	add_many($database, $n, $callback, 'clock_timestamp()', 'plain');
	sql($database, q{
		INSERT INTO plain SELECT a.run_at, t.* FROM _taskshed.task t JOIN _taskshed.alarm a USING (id)}
	);
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
	foreach my $session (@sessions)    # connected, and the code is there
	{
		$session->start("BEGIN; SELECT $callback(0); ROLLBACK");
		$session->finish;
	}
	sql($database, 'TRUNCATE ledger');
	settle($database);

	my $cpu   = server_cpu();
	my $start = time();
	$_->start("CALL plain_${form}_$callback()") foreach @sessions;
	$_->finish foreach @sessions;
	my $seconds = time() - $start;
	$cpu = server_cpu() - $cpu;

	die "rows were left\n"
	  if value($database, 'SELECT count(*) FROM plain') > 0;
	check_effects($database, $n) if $callback eq 'effect';
	return figures($n, $seconds, $cpu);
}


# pg_cron, whose jobs can run once a minute.  So many jobs for every minute are
# made; when the next minute comes they are all due at once, and the drain takes
# from the first effect to the last.  The lag counts from the full minute.
sub drain_cron
{
	my ($n) = @_;
	my $database = database('cron');

	sql($database, 'TRUNCATE ledger');
	await($database,
		'SELECT extract(second FROM clock_timestamp()) BETWEEN 2 AND 50');
	sql($database, qq{
		SELECT count(cron.schedule('job' || i, '* * * * *',
			format('INSERT INTO ledger VALUES (%s, null, clock_timestamp())', i)))
		FROM generate_series(0, $n - 1) AS i});
	my $cpu = server_cpu();
	eval { await($database, "SELECT count(*) >= $n FROM ledger", 115, 0.1); }
	  or note("  $@");
	$cpu = server_cpu() - $cpu;
	sql($database, 'DELETE FROM cron.job; DELETE FROM cron.job_run_details');

	# (Were it more than a minute's worth, some would have run twice or not at all.)
	my ($done, $seconds) = split /\|/,
	  value($database,
		q{SELECT count(DISTINCT n), extract(epoch FROM max(started) - min(started)) FROM ledger}
	  );
	die "$done of $n jobs have run\n" if $done < $n;
	return figures(
		$done, $seconds, $cpu,
		lags => [
			sql($database,
				q{SELECT extract(epoch FROM started - date_trunc('minute', started)) * 1000 FROM ledger}
			)
		]);
}


# The peers from npm.  Each is a process of its own; peer.mjs says how one
# talks to it.

sub start_peer
{
	my ($name, $what, %params) = @_;
	my $self = bless {}, 'Contestants::Peer';

	die "not installed: the npm packages could not be had\n" if !$have{npm};
	# (Numbers in JSON, too.)
	%params =
	  map { $_ => $params{$_} =~ /^[\d.]+$/ ? $params{$_} + 0 : $params{$_} }
	  keys %params;
	$params{database} = database($name);
	local $ENV{PATH} = "$ENV{BENCH_NODE}:$ENV{PATH}";
	$self->{pid} =
	  open2($self->{out}, $self->{in}, 'node', "bench/$name.mjs", $what,
		JSON::PP->new->canonical->encode(\%params));
	$self->{in}->autoflush(1);
	my $line = readline $self->{out};
	return $self if defined $line && $line eq "ready\n";
	waitpid $self->{pid}, 0;
	die "$name did not start: " . ($line // 'see above') . "\n";
}

sub Contestants::Peer::go
{
	my ($self) = @_;

	print { $self->{in} } "go\n";
	return;
}

sub Contestants::Peer::result
{
	my ($self) = @_;
	my $line = readline $self->{out};

	waitpid $self->{pid}, 0;
	my $result = decode_json($line // '{"error": "it died"}');
	die "$result->{error}\n" if defined $result->{error};
	return $result;
}

# Starts one, lets it work, and returns what it has measured.
sub peer
{
	my $peer = start_peer(@_);

	$peer->go;
	return $peer->result;
}

# How many it gets done in a time that is limited.
sub drain_peer
{
	my ($name, $callback, $best) = @_;
	my $insert = $callback eq 'effect' ? 1 : 0;
	my ($n, $limit) =
		$best
	  ? @size{qw(drain drain_best_limit_s)}
	  : @size{qw(drain_peers drain_limit_s)};
	my $peer = start_peer(
		$name, 'drain',
		n       => $n,
		insert  => $insert,
		best    => $best,
		limit_s => $limit);

	sql('postgres', 'CHECKPOINT');
	my $cpu = server_cpu();
	$peer->go;
	my $result = $peer->result;
	$cpu = server_cpu() - $cpu;
	die "nothing done in $limit s\n" if !$result->{done};
	if ($insert)
	{
		my ($effects, $different) = split /\|/,
		  value($name, 'SELECT count(*), count(DISTINCT n) FROM ledger');

		# (What was under way at the end of the time may still have been done.)
		die "$effects effects of $result->{done} jobs\n"
		  if $effects != $different || $effects < $result->{done};
	}
	return figures($result->{done}, $result->{seconds}, $cpu,
		client10k => $result->{cpu} / $result->{done} * 10_000);
}

1;
