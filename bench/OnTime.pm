
# What runs cost that come one by one.
#
# A backlog shows what a run costs when the next is there already.  Here tasks
# are spread evenly over time, so for each of them somebody has to be woken, and
# goes to sleep again.  What is measured is the CPU of all processes of the server
# for 10,000 runs, at some rates, with a callback that inserts a row.
#
# One-off tasks are all added beforehand, which is not counted.  Recurring ones
# are as many as there are runs in a second, each of them every second.  The first
# half second is not counted either, in which the worker comes.
#
# The limit is one process that knows all times beforehand.  It sleeps until
# each, with a system call and nothing else, and executes a transaction like that
# of a run: it deletes the task's row, or puts it to its next time, calls the
# callback, and writes a record with an index entry; its commit does not wait for
# the disk.  It is a session of the server, in a
# procedure: a client that sleeps and sends the same would cost more, since the
# server's process would be woken by it, and it would have to be counted as well.
# The limit has no watch over what it calls (no timeouts, no failures), and
# nobody can add a task that is due sooner.
#
# The peers look for jobs that are due at a later time every so often, so they
# have no runs on time.  They are fed with jobs for now at the same rate, each
# added by a call of its own, in the first few rounds, whose cost in the server is in the figure; and so
# is taskshed, once more.  (The client is a process of Node.js, for taskshed, too.)
# A peer's callback inserts by a connection of its own.
#
# Autovacuum is off meanwhile: it would come now and then, for one or the other.

package OnTime;

use strict;
use warnings;

use Bench;
use Contestants;
use Server;
use Time::HiRes qw(sleep time);

my @rates = $quick ? (1000) : (100, 1000, 5000);

# Of the ratio to the limit.
my %goal = (1000 => 1.5);

# The span before and after what is counted.
my $margin_s = 0.5;

my $serial = 0;

sub measure
{
	my $off = { autovacuum => 'off' };

	with_settings($off, sub { at_rate($_) foreach @rates })->();
	return;
}

sub at_rate
{
	my ($rate)  = @_;
	my $seconds = $size{ontime_s};
	my %kind    = ('one-off' => 0, recurring => 1);
	my @contestants;

	foreach my $kind ('one-off', 'recurring')
	{
		push @contestants,
		  "taskshed, $kind" =>
		  sub { taskshed($rate, $seconds, $kind{$kind}) },
		  "limit, $kind" => sub { limit($rate, $seconds, $kind{$kind}) };
	}
	push @contestants,
	  'taskshed, added for now' =>
	  sub { fed('taskshed', $rate, $seconds, @_) },
	  'graphile-worker' => sub { fed('graphile', $rate, $seconds, @_) },
	  'pg-boss'         => sub { fed('pgboss',   $rate, $seconds, @_) };
	rows($rate, alternate(@contestants));
	return;
}

sub rows
{
	my ($rate, $figures) = @_;
	my $what = "on time, $rate runs/s: CPU of the server for 10,000";
	my %cpu = map { $_ => field($figures->{$_}, 'cpu10k_ms') } keys %$figures;
	my $fed = 'taskshed, added for now';

	foreach my $kind ('one-off', 'recurring')
	{
		my ($own, $limit) = ("taskshed, $kind", "limit, $kind");

		row(part       => 'ontime',
			what       => $what,
			who        => $own,
			values     => $cpu{$own},
			unit       => 'ms',
			chart      => $what,
			note       => remark($figures->{$own}),
			ratio      => ratios($cpu{$own}, $cpu{$limit}),
			to         => 'the limit',
			ratio_goal => $goal{$rate} ? [ '<=', $goal{$rate} ] : undef);
		row(part   => 'ontime',
			what   => $what,
			who    => "limit: sleeps and executes, $kind",
			values => $cpu{$limit},
			unit   => 'ms',
			chart  => $what,
			note   => remark($figures->{$limit}));
	}
	foreach my $who ($fed, 'graphile-worker', 'pg-boss')
	{
		row(part   => 'ontime',
			what   => $what,
			who    => $who eq $fed ? $who : "$who, added for now",
			values => $cpu{$who},
			unit   => 'ms',
			chart  => $what,
			note   => remark($figures->{$who}, $rate),
			ratio  => $who eq $fed ? undef : ratios($cpu{$who}, $cpu{$fed}),
			to     => $fed);
	}
	return;
}

# What else is known of them: medians.
sub remark
{
	my ($figures, $rate) = @_;
	my @remarks;

	return if ref $figures ne 'ARRAY';
	my %of = map {
		my $field = $_;
		$field =>
		  scalar median(grep { defined } map { $_->{$field} } @$figures)
	} qw(p50 p99 wakeups client10k_ms rate);

	push @remarks, sprintf '%.1f wake-ups a run', $of{wakeups}
	  if defined $of{wakeups};
	push @remarks, sprintf 'lag p50 %.2f, p99 %.2f ms', @of{qw(p50 p99)}
	  if defined $of{p50};
	push @remarks, sprintf 'and %.0f ms of its own process', $of{client10k_ms}
	  if defined $of{client10k_ms};
	push @remarks, sprintf 'only %.0f runs/s', $of{rate}
	  if defined $rate && $of{rate} < 0.95 * $rate;
	return join '; ', @remarks;
}

# How the tasks are spread: how many, and SQL for the time of the i-th of them.
sub spread
{
	my ($rate, $seconds, $recurring) = @_;
	my $n = $rate * ($seconds + 2 * $margin_s);

	# (They are all there when the first is due.)
	my $begins = time() + 1.5 + ($recurring ? $rate : $n) / 15_000;

	return ($n, $begins,
		"to_timestamp($begins) + i * interval '1 s' / $rate");
}

# Adds them, to a database with taskshed.
sub add
{
	my ($database, $rate, $n, $begins, $run_at, $group, $recurring) = @_;

	if ($recurring)
	{
		my $until = $begins + $n / $rate - 0.5 / $rate;

		sql($database, qq{
			SELECT cardinality(taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'public.effect',
				'kwargs', jsonb_build_object('n', i), 'run_at', $run_at, 'every', '1 s',
				'until', to_timestamp($until), 'group_id', '$group'))))
			FROM generate_series(0, $rate - 1) AS i}, 'bench');
		return;
	}
	add_many($database, $n, 'effect', $run_at, $group);
	return;
}

# What the server uses from the first margin to the last, and how many runs
# begin meanwhile, of a table with the columns of taskshed.runs.
sub watch
{
	my ($database, $n, $begins, $seconds, $runs, $group) = @_;

	die "it took too long to add the tasks\n" if time() > $begins - 0.3;
	sleep $begins + $margin_s - time();
	my ($from, $cpu, $wakeups) = (time(), server_cpu(), server_wakeups());
	sleep $from + $seconds - time();
	my ($to, $more_cpu, $more_wakeups) =
	  (time(), server_cpu(), server_wakeups());
	sleep $margin_s;

	my $all =
	  qq{FROM $runs WHERE group_id = '$group' AND status = 'succeeded'};
	await($database, "SELECT count(*) >= $n $all", 30, 0.5);
	my ($done, $p50, $p99) = split /\|/, value(
		$database, qq{
		SELECT count(*), extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY lag)) * 1000,
			extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY lag)) * 1000
		FROM (SELECT started_at - scheduled_at AS lag $all
			AND started_at >= to_timestamp($from) AND started_at < to_timestamp($to)) AS r}
	);
	my ($runs_of_all, $times, $effects) = split /\|/, value(
		$database, qq{
		SELECT count(*), count(DISTINCT (task_id, scheduled_at)), (SELECT count(*) FROM ledger) $all}
	);
	die "$runs_of_all runs for $times times with $effects effects, not $n\n"
	  if grep { $_ != $n } $runs_of_all, $times, $effects;
	return {
		done      => $done,
		rate      => $done / ($to - $from),
		cpu10k_ms => ($more_cpu - $cpu) / $done * 1e7,
		wakeups   => more($wakeups, $more_wakeups) / $done,
		p50       => $p50,
		p99       => $p99
	};
}

# (What has ended in between is not counted, what has begun is.)
sub more
{
	my ($before, $after) = @_;
	my $more = 0;

	$more += $after->{$_} - ($before->{$_} // 0) foreach keys %$after;
	return $more;
}

sub taskshed
{
	my ($rate, $seconds, $recurring) = @_;
	my $database = database('taskshed');
	my $group    = 'ontime' . ++$serial;

	enabled($database, 1);
	sql($database, 'TRUNCATE ledger');
	settle($database);
	my ($n, $begins, $run_at) = spread($rate, $seconds, $recurring);
	add($database, $rate, $n, $begins, $run_at, $group, $recurring);
	return watch($database, $n, $begins, $seconds, 'taskshed.runs', $group);
}

sub limit
{
	my ($rate, $seconds, $recurring) = @_;
	my $database = database('taskshed_plain');
	my $group    = 'ontime' . ++$serial;
	my $session  = session($database, undef, 'on time');
	my $flag     = $recurring ? 'true' : 'false';

	enabled($database, 0);
	sql($database, 'TRUNCATE plain, plain_run, ledger');
	settle($database);
	my ($n, $begins, $run_at) = spread($rate, $seconds, $recurring);
	add($database, $rate, $n, $begins, $run_at, $group, $recurring);
	sql($database, q{
		INSERT INTO plain SELECT a.run_at, t.* FROM _taskshed.task t JOIN _taskshed.alarm a USING (id);
		ANALYZE plain});
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
	$session->start(
		qq{SET synchronous_commit = off;
		CALL plain_on_time($n, to_timestamp($begins), interval '1 s' / $rate, $flag)}
	);
	my $figures =
	  watch($database, $n, $begins, $seconds, 'plain_run', $group);
	$session->finish;
	return $figures;
}

# Added one by one for now, by a client.
sub fed
{
	my ($name, $rate, $seconds, $round) = @_;

	return if $round > $size{few_rounds};
	my $database = database($name);
	my $group    = 'ontime' . ++$serial;
	my $n        = $rate * $seconds;

	if ($name eq 'taskshed')
	{
		enabled($database, 1);
		settle($database);
	}
	my $peer = start_peer(
		$name, 'feed',
		n       => $n,
		rate    => $rate,
		best    => 1,
		group   => $group,
		limit_s => 2 * $seconds);

	if ($name eq 'taskshed')
	{
		# (Before it was ready it has added some, so that all is warm.)
		await($database, 'SELECT count(*) >= 20 FROM ledger WHERE n = -1');
		sql($database, 'TRUNCATE ledger');
	}
	else
	{
		sql('postgres', 'CHECKPOINT');
	}
	my $cpu = server_cpu();
	$peer->go;
	my $result = $peer->result;
	sleep 0.2 if $name eq 'taskshed';    # the last have to run yet
	$cpu = server_cpu() - $cpu;
	my $done = $result->{done};

	die "nothing done\n" if !$done;
	await($database, "SELECT count(*) >= $n FROM ledger", 60, 0.5)
	  if $name eq 'taskshed';
	my ($effects, $different) = split /\|/,
	  value($database, 'SELECT count(*), count(DISTINCT n) FROM ledger');
	die "$effects effects, $different different ones, of $done\n"
	  if $effects != $different || $effects < $done;
	return {
		done         => $done,
		rate         => $done / $result->{seconds},
		cpu10k_ms    => $cpu / $done * 1e7,
		client10k_ms => $result->{cpu} / $done * 1e7
	};
}

1;
