/*-------------------------------------------------------------------------
 *
 * zone_names.c
 *		Time zones by the names that users give them.
 *
 * The server takes names of its time zone database, and descriptions in POSIX
 * notation, in which hours count to the west: UTC+3 is New York's side of
 * Greenwich.  A number would be read that way, too, and is refused: in SET
 * TimeZone it counts to the east.  (Whatever else there is means the same to
 * SET TimeZone.)
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "api/api.h"

/* A name that is meant has at most so many letters more, fewer or other. */
#define MAX_EDITS		2

/* Write an offset from UTC as people do, from seconds to the east. */
static char *
zone_offset_text(long offset)
{
	long		seconds = labs(offset);
	char	   *text = psprintf("UTC%c%02ld:%02ld", offset < 0 ? '-' : '+',
								seconds / SECS_PER_HOUR, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);

	return seconds % SECS_PER_MINUTE == 0 ? text :
				psprintf("%s:%02ld", text, seconds % SECS_PER_MINUTE);
}

/*
 * Refuse what SET TimeZone reads as a number, 22023, unless it is the same zone
 * there.  zone is what it is in POSIX notation, which can be one where clocks
 * change: of 3.5, .5 is the name of its summer time.
 */
static void
zone_refuse_number(const char *name, pg_tz *zone)
{
	char	   *end;
	double		hours = strtod(name, &end);
	long		set;
	long		posix;
	pg_tz	   *set_zone;
	pg_tz	   *posix_zone = NULL;

	if (end == name || *end != '\0')
		return;

	/* (what is too large to be converted is no zone either) */
	set = fabs(hours) < HOURS_PER_DAY * 7 ? (long) (hours * SECS_PER_HOUR) : LONG_MAX;
	set_zone = set != LONG_MAX ? pg_tzset_offset(-set) : NULL;
	if (pg_get_timezone_offset(zone, &posix))
	{
		if (set == posix)
			return;
		posix_zone = pg_tzset_offset(-posix);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("time zone \"%s\" is an offset that has two meanings", name),
			 set_zone == NULL ?
			 errhint("A name like Europe/Berlin also knows when clocks change.") :
			 posix_zone == NULL ?
			 errhint("In SET TimeZone it is %s, which is written \"%s\" here; as a POSIX time zone it is one where clocks change. A name like Europe/Berlin also knows when they do.",
					 zone_offset_text(set), pg_get_timezone_name(set_zone)) :
			 errhint("In SET TimeZone it is %s, which is written \"%s\" here; as a POSIX time zone it is %s, \"%s\". A name like Europe/Berlin also knows when clocks change.",
					 zone_offset_text(set), pg_get_timezone_name(set_zone),
					 zone_offset_text(posix), pg_get_timezone_name(posix_zone))));
}

/*
 * Return how far a zone's name is from what somebody has written, who may have
 * left out the continent; more than the bound if it is too far.
 */
static int
zone_distance(const char *written, const char *name, int bound)
{
	const char *city = strrchr(name, '/');
	int			distance = resolve_distance(written, name, bound);

	if (city != NULL && distance > 0)
		distance = Min(distance, resolve_distance(written, city + 1, bound));
	return distance;
}

/*
 * Return the zone whose name somebody is likely to have meant, or NULL.  Of two
 * that are as close it is the one with the shorter name, so that it is none of
 * a folder that has them all once more.
 */
static char *
zone_closest(const char *written)
{
	char	   *spaceless = pstrdup(written);
	char	   *closest = NULL;
	int			best = Min(MAX_EDITS, (int) strlen(written) / 4);
	pg_tzenum  *names = pg_tzenumerate_start();
	pg_tz	   *zone;

	for (char *p = spaceless; *p != '\0'; p++)
	{
		if (*p == ' ')
			*p = '_';
	}
	while ((zone = pg_tzenumerate_next(names)) != NULL)
	{
		const char *name = pg_get_timezone_name(zone);
		int			distance = zone_distance(spaceless, name, best);

		CHECK_FOR_INTERRUPTS();
		if (distance < best ||
			(distance == best && (closest == NULL || strlen(name) < strlen(closest) ||
								  (strlen(name) == strlen(closest) && strcmp(name, closest) < 0))))
		{
			best = distance;
			closest = pstrdup(name);
		}
	}
	pg_tzenumerate_end(names);
	return closest;
}

/* Return a time zone by its name, the session's if that is NULL; 22023 if unknown. */
pg_tz *
zone_by_name(const char *name)
{
	pg_tz	   *zone;

	if (name == NULL)
		return session_timezone;
	zone = pg_tzset(name);

	/* SET TimeZone takes this for a length of time, not for a POSIX zone */
	if (zone == NULL || !pg_tz_acceptable(zone) ||
		pg_strncasecmp(name, "interval", strlen("interval")) == 0)
	{
		char	   *closest = zone_closest(name);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name),
				 closest != NULL && strchr(closest, '/') == NULL ?
				 errhint("Did you mean \"%s\", or a name like Europe/Berlin?", closest) :
				 closest != NULL ? errhint("Did you mean \"%s\"?", closest) :
				 errhint("The view pg_timezone_names lists the names, which are like Europe/Berlin.")));
	}
	zone_refuse_number(name, zone);
	return zone;
}

/*
 * Return what is to be said of a zone beside its name: its offset from UTC if
 * there is one in the name, since that has the opposite sign; and nothing of
 * others.  Those of now and after the next change if clocks are changed there.
 * That is within a year: EST5EDT5 has a summer time without end that changes no
 * clock.
 */
char *
zone_offsets(pg_tz *zone, TimestampTz now)
{
	int64		from = zone_seconds(now);
	ZoneSpan	span;
	ZoneSpan	next;

	if (strpbrk(pg_get_timezone_name(zone), "0123456789") == NULL)
		return "";
	zone_span(zone, from, &span);
	next = span;
	while (next.to < from + 366 * SECS_PER_DAY && next.offset == span.offset)
		zone_span(zone, next.to, &next);
	if (next.offset == span.offset)
		return psprintf(" (%s)", zone_offset_text(span.offset));
	return psprintf(" (%s and %s)", zone_offset_text(Min(span.offset, next.offset)),
					zone_offset_text(Max(span.offset, next.offset)));
}
