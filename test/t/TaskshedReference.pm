
# docs/reference.md as data, and the same from the sources.
#
# The page has a section for each function, view and type, with tables of parameters and columns.
# What is compared is a set of facts: texts by a name like "function add_task".

package TaskshedReference;

use strict;
use warnings;
use utf8;

use Exporter 'import';

our @EXPORT = qw(
  reference_read
  reference_facts
  reference_fact
  reference_script_facts
);

# The tables of a section: for each the words of its head, and its rows.
sub tables_of
{
	my ($text) = @_;
	my @tables;

	while ($text =~ /^(\|.*\|)\n\|[-|]+\|\n((?:\|.*\|\n)*)/mg)
	{
		my ($head,  $body) = ($1, $2);
		my ($first, @lines) =
		  map {
			[ map { s/^ +| +$//gr } split /\|/, s/^\||\|$//gr, -1 ]
		  } ($head, split /\n/, $body);

		push @tables, { head => $first->[0], rows => \@lines };
	}
	return @tables;
}

# A word in a cell, without its quotes.
sub bare
{
	my ($cell) = @_;

	return $cell =~ s/^`(.*)`$/$1/r;
}

# Reads the page: its sections by their headings, each with what is in it.
sub reference_read
{
	my ($page) = @_;
	my %sections;
	my (undef, @parts) = split /^#{2,3} (.*)\n/m, $page;

	while (my ($heading, $text) = splice @parts, 0, 2)
	{
		die "there are two sections $heading\n" if $sections{$heading};
		my %tables  = map { $_->{head} => $_->{rows} } tables_of($text);
		my $section = $sections{$heading} =
		  { text => $text, tables => \%tables };

		($section->{names}, $section->{returns}) = ($1, $2)
		  if $text =~ /^`taskshed\.\Q$heading\E\((.*)\) → (.+)`$/m;
		$section->{params} = [
			map {
				{
					name     => bare($_->[0]),
					type     => bare($_->[1]),
					required => ($_->[2] // '') eq 'required',
					default  => $_->[2],
					text     => $_->[3]
				}
			} @{ $tables{parameter} || [] }
		];
		$section->{columns} = [
			map {
				join ' ',
				  map { bare($_) }
				  @$_[ 0, 1 ]
			} @{ $tables{column} || [] }
		];
		($section->{errors}) = $text =~ /\bErrors\b[^:]*: (.*)/s;
	}
	return \%sections;
}

# The fact of a function: its parameters, what it returns, and the columns of that.
sub reference_fact
{
	my ($params, $returns, $columns) = @_;

	return join "\n",
	  (map { "$_->{name} $_->{type}" . ($_->{required} ? ' required' : '') }
		  @$params),
	  "returns $returns", @$columns;
}

# What the page says of functions, views, types and settings.
sub reference_facts
{
	my ($sections) = @_;
	my %facts;

	foreach my $heading (keys %$sections)
	{
		my $section = $sections->{$heading};

		if ($section->{returns})
		{
			my $names = join ', ', map { $_->{name} } @{ $section->{params} };
			my $said  = join '.*', map { quotemeta } split /…/,
			  $section->{names}, -1;

			$facts{"function $heading"} =
			  $names =~ /^$said$/
			  ? reference_fact(@$section{qw(params returns columns)})
			  : "the first line has ($section->{names}), the table ($names)";
		}
		$facts{ lcfirst $heading } = join "\n", @{ $section->{columns} }
		  if $heading =~ /^(?:View|Type) /;
	}
	foreach my $row (@{ $sections->{Settings}{tables}{setting} })
	{
		my ($name, $default, $unit, $range, $for) = map { tr/`//dr } @$row;

		$facts{"setting $name"} = "$default, unit $unit, $range, for "
		  . (
			  $for eq 'server, database'       ? 'databases'
			: $for eq 'server, database, role' ? 'databases and roles'
			: $for eq 'everybody'              ? 'user'
			:                                    $for);
	}
	return \%facts;
}

# The same of functions and types, from the script; and the names of settings, which have no more
# to them here, from the sources.  It needs to be told which parameters with a default are required
# all the same.
sub reference_script_facts
{
	my ($script, $settings, $sections) = @_;
	my %facts;

	while ($script =~
		/^CREATE (FUNCTION|PROCEDURE) taskshed\.([a-z]\w*)\((.*?)\)\s+(?:RETURNS (.*?)\s+)?LANGUAGE/msg
	  )
	{
		my ($kind, $name, $list, $returns) = ($1, $2, $3, $4);
		my %required = map { $_->{name} => $_->{required} }
		  @{ $sections->{$name}{params} };
		my (@params, @columns);

		foreach my $param (split /,\s*/, $list =~ s/^\s+//r)
		{
			my ($out, $param_name, $type, $default) =
			  $param =~ /^(OUT )?(\w+) (.*?)( DEFAULT NULL)?$/;

			if ($out)
			{
				push @columns, "$param_name $type";
				next;
			}
			push @params,
			  {
				name     => $param_name,
				type     => $type,
				required => !$default || $required{$param_name}
			  };
		}
		$facts{"function $name"} =
		  reference_fact(\@params,
			$kind eq 'PROCEDURE' ? 'procedure' : $returns, \@columns);
	}
	while ($script =~ /^CREATE TYPE taskshed\.(\w+) AS \((.*?)\);/msg)
	{
		my ($name, $list) = ($1, $2);

		$facts{"type $name"} = join "\n", split /,\s*/, $list =~ s/^\s+//r;
	}
	$facts{"setting $_"} = ''
	  foreach $settings =~ /^\tDefineCustom\w+\("(taskshed\.\w+)"/mg;
	return \%facts;
}

1;
