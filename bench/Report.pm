
# The table, as text and as Markdown, and its charts as SVG.

package Report;

use strict;
use warnings;
use utf8;

use Bench;
use Exporter 'import';
use List::Util qw(max min);
use Load;

our @EXPORT = qw(line_of ours_failed write_results);

# Three digits are as many as mean anything.
sub figure
{
	my ($x) = @_;

	return '0' if $x == 0;
	my $digits =
	  max(0, 2 - int(log(abs $x) / log(10) + (abs $x < 1 ? -1 : 0)));
	my $text = sprintf '%.*f', min(6, $digits), $x;
	return with_commas($text);
}

sub with_commas
{
	my ($text) = @_;

	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $text;
}

# "median (min … max)", or why there is none.
sub figures
{
	my ($values) = @_;

	return '–' if !defined $values;
	return 'not measured: ' . $values =~ s/\s+$//r =~ s/\s+/ /gr
	  if !ref $values;
	return 'not measured'       if !@$values;
	return figure($values->[0]) if @$values == 1;
	return sprintf '%s (%s … %s)', map { figure($_) } median(@$values),
	  min(@$values), max(@$values);
}

my %holds = (
	'>=' => sub { $_[0] >= $_[1] },
	'<=' => sub { $_[0] <= $_[1] },
	'>'  => sub { $_[0] > $_[1] });
my %sign = ('>=' => '≥', '<=' => '≤', '>' => '>');

# The goals of a row: their text, and whether the medians, or all figures, meet them,
# and how many of the rounds do.
sub goals
{
	my ($row) = @_;
	my (@text, $met, $unknown);
	my $rounds = '';

	foreach (
		[ $row->{goal},       $row->{values}, '' ],
		[ $row->{ratio_goal}, $row->{ratio},  ' ×' ])
	{
		my ($goal, $values, $unit) = @$_;

		next if !$goal;
		push @text, "$sign{$goal->[0]} " . with_commas($goal->[1]) . $unit;
		my @judged =
			!ref $values ? ()
		  : $goal->[2]   ? @$values
		  :                (median(@$values) // ());
		if (!@judged)
		{
			$unknown = 1;
			next;
		}
		$met = ($met // 1)
		  && !grep { !$holds{ $goal->[0] }->($_, $goal->[1]) } @judged;
		$rounds .= sprintf ' (%d of %d)',
		  scalar(grep { $holds{ $goal->[0] }->($_, $goal->[1]) } @$values),
		  scalar @$values
		  if @$values > 1;
	}
	return ('', '') if !@text;
	return (join(', ', @text),
		$unknown ? 'NOT MEASURED' : ($met ? 'met' : 'NOT MET') . $rounds);
}

# What is to be said of a measurement in which others had a part.
sub distrust
{
	my ($measurement) = @_;
	my $rounds        = $measurement->{rounds};
	my @bad           = grep { !trusted($rounds->[ $_ - 1 ]) } 1 .. @$rounds;

	return ''                    if !@bad;
	return '; not to be trusted' if @bad == @$rounds;
	return sprintf '; round%s %s not to be trusted', @bad > 1 ? 's' : '',
	  join ', ',
	  @bad;
}

# The cells of a row.
sub cells
{
	my ($row) = @_;
	my $value = figures($row->{values});

	$value .= " $row->{unit}"  if ref $row->{values} && $row->{unit};
	$value .= ", $row->{note}" if $row->{note};
	$value .= distrust($row->{measurement}) if ref $row->{values};
	my $ratio = ref $row->{ratio}
	  && @{ $row->{ratio} } ? figures($row->{ratio}) . " × $row->{to}" : '';
	return ($row->{what}, $row->{who}, $value, $ratio, goals($row));
}

# Could something that is not a peer not be measured?
sub ours_failed
{
	return scalar grep {
		!ref $_->{values} && $_->{who} !~ /graphile|pg-boss|pg_cron|peer/
	} @rows;
}

# A row as a line of its own.
sub line_of
{
	my ($row) = @_;

	return join '; ', grep { $_ ne '' } cells($row);
}

sub print_table
{
	my @table = (
		[ 'what', 'who', 'median (min … max)', 'ratio', 'goal', '' ],
		map { [ cells($_) ] } @rows);
	my @width = map {
		my $column = $_;
		max(map { length $_->[$column] } @table)
	} 0 .. 5;

	foreach my $line (@table)
	{
		my $text = join '  ',
		  map { sprintf '%-*s', $width[$_], $line->[$_] } 0 .. 5;
		$text =~ s/\s+$//;
		print "$text\n";
	}
	return;
}

# Charts of bars, one file for each name that rows say, with a line from the
# least to the greatest.
sub charts
{
	my ($folder) = @_;
	my (%of, @names);

	foreach
	  my $row (grep { $_->{chart} && ref $_->{values} && @{ $_->{values} } }
		@rows)
	{
		push @names, $row->{chart} if !$of{ $row->{chart} };
		push @{ $of{ $row->{chart} } }, $row;
	}
	my @files;
	foreach my $name (@names)
	{
		next if @{ $of{$name} } < 2;
		(my $file = lc $name) =~ s/[^a-z0-9]+/-/g;
		$file =~ s/^-|-$//g;
		open my $out, '>:encoding(UTF-8)', "$folder/$file.svg"
		  or die "$folder/$file.svg: $!\n";
		print $out chart($name, @{ $of{$name} });
		close $out;
		push @files, [ $name, "$file.svg" ];
	}
	return @files;
}

sub escape
{
	my ($text) = @_;

	$text =~ s/&/&amp;/g;
	$text =~ s/</&lt;/g;
	return $text;
}

# Bars are as long as the medians, on a logarithmic scale if these are far apart.
sub chart
{
	my ($title, @bars) = @_;
	my ($left, $width, $step) = (330, 330, 26);
	my @positive = grep { $_ > 0 } map { @{ $_->{values} } } @bars;
	my $most     = @positive ? max(@positive) : 1;
	my $least    = @positive ? min(@positive) : 1;
	my $log      = $most / $least > 100;
	my $from     = $least / 2;
	my $x        = sub {
		my ($value) = @_;

		return $left if $value <= 0;
		return $left +
		  $width *
		  ($log ? log($value / $from) / log($most / $from) : $value / $most);
	};
	my $height = 40 + $step * @bars;
	my $unit   = $bars[0]{unit} . ($log ? ', logarithmic scale' : '');
	my $svg =
	  sprintf
	  qq{<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 %d" font-family="sans-serif" font-size="13">\n}
	  . qq{<rect width="800" height="%d" fill="#fff"/>\n<text x="8" y="20" font-weight="bold">%s</text>\n},
	  $height, $height, escape("$title ($unit)");

	foreach my $i (0 .. $#bars)
	{
		my $bar = $bars[$i];
		my $y   = 34 + $i * $step;
		my ($low, $middle, $high) = map { $x->($_) } min(@{ $bar->{values} }),
		  median(@{ $bar->{values} }),
		  max(@{ $bar->{values} });

		$svg .= sprintf qq{<text x="%d" y="%d" text-anchor="end">%s</text>\n},
		  $left - 8, $y + 14, escape($bar->{who});
		$svg .=
		  sprintf
		  qq{<rect x="%d" y="%d" width="%.1f" height="18" fill="%s"/>\n},
		  $left, $y,
		  max(1, $middle - $left),
		  $bar->{who}   =~ /^taskshed/ ? '#2f6db5'
		  : $bar->{who} =~ /^limit/    ? '#9aa5b1'
		  :                              '#d08a3c';
		$svg .= sprintf qq{<path d="M%.1f %d H%.1f" stroke="#000"/>\n}, $low,
		  $y + 9, $high;
		$svg .= sprintf qq{<text x="%.1f" y="%d">%s</text>\n},
		  max($middle, $high) + 6, $y + 14,
		  figure(median(@{ $bar->{values} }));
	}
	return "$svg</svg>\n";
}

# Prints the table, and writes RESULTS.md with what one has to know to read it.
sub write_results
{
	my ($folder, %about) = @_;
	my @charts = charts($folder);

	print "\n";
	print_table();

	open my $out, '>:encoding(UTF-8)', "$folder/RESULTS.md"
	  or die "$folder/RESULTS.md: $!\n";
	my $form = $quick
	  ? "
**This is the short form, which is for trying it out: do not quote it.**
"
	  : '';

	$form .= "
**Only some of it was measured: $about{Parts}.**
" if defined $about{Parts};
	$form .= "
**Something of ours failed: see \"not measured\".**
" if ours_failed();
	my $list = join '', map { "- $_: $about{$_}\n" } sort keys %about;

	print $out <<"END";
# Measurements

Made by `make bench`, and not edited. [bench/](.) has what is measured and why that is fair: each file
begins with it.
$form
$list
Each figure is the median of the rounds, with the least and the greatest; where there is a goal, in
parentheses how many rounds meet it. Contestants take turns, and a
ratio is one of figures of the same round. *limit* is the same work in plain SQL, without a scheduler.

| what | who | median (min … max) | ratio | goal | |
|---|---|---|---|---|---|
END
	print $out '| ', join(' | ', map { s/\|/\\|/gr } cells($_)), " |\n"
	  foreach @rows;
	print $out "\n## Charts\n\n" if @charts;
	print $out "![$_->[0]]($_->[1])\n\n" foreach @charts;
	print $out <<"END";
## Was the machine ours alone?

The processors' time that other virtual machines had (steal), and what other processes of this one had. A
round with more than a twentieth of either is not to be trusted.

| measurement | steal, % of each round | others, % of each round | |
|---|---|---|---|
END
	foreach my $measurement (grep { @{ $_->{rounds} } } @measurements)
	{
		my @rounds = @{ $measurement->{rounds} };

		print $out '| ', join(
			' | ',
			$measurement->{what} // '',
			(   map {
					my $of = $_;
					join ', ', map { sprintf '%.0f', $_->{$of} } @rounds
				} qw(steal others)),
			distrust($measurement) =~ s/^; //r),
		  " |\n";
	}
	print $out <<"END";

## What to keep in mind

- The commit that ends a run of taskshed does not wait for the disk (`taskshed.synchronous_commit` is `off`
  by default): effects and bookkeeping are in one commit record, so a crash takes both back and the task
  runs again. The limit and the peers commit as PostgreSQL does by default, and wait. Rows that say
  `synchronous_commit` have it the other way: taskshed with commits that wait, the others without.
- The client that adds tasks for now, one after the other, does not wait for the disk in its commits, since
  that would only blur the lag.
- taskshed has a transaction and a record for every run. The limit has one transaction for a hundred and
  no record; the peers at their best settings acknowledge in batches.
- The peers call JavaScript, in processes of their own, beside the server on the same machine. On a
  machine with more cores, or with the peers on another, they get further. Their no-op does not
  reach the database at all.
- pg_cron of Debian 12 (1.4) has no schedules of seconds. Its jobs were all made for the next full minute;
  it has its default settings, with up to 32 sessions at a time.
- A drain's first tenth has the start of the workers in it.
- Client, server and peers share the machine's cores; the server's figures are so for all of them.
- A virtual machine's clock and neighbours have a part in the figures. Ratios of the same run say more
  than figures, and the distance from the least to the greatest says how much.
END
	close $out;
	return;
}

1;
