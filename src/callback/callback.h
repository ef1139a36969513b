/*-------------------------------------------------------------------------
 *
 * callback.h
 *		From a name and kwargs to a call.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_CALLBACK_CALLBACK_H
#define TASKSHED_CALLBACK_CALLBACK_H

#include "postgres.h"

#include "nodes/params.h"
#include "pgtime.h"
#include "utils/jsonb.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#include "commit/commit.h"

/* ------------------------------------------------------------------------
 * resolve_arguments.c
 */
/* The one argument of a function that takes all of kwargs as it is. */
#define WHOLE_ARGUMENT	"kwargs"

/* An argument of a function or procedure, as declared. */
typedef struct CallbackArgument
{
	const char *name;			/* "" if it has none */
	Oid			type;
	bool		is_input;		/* IN, INOUT or VARIADIC */
	bool		is_variadic;
	bool		is_result;		/* OUT; neither: a column of RETURNS TABLE */
	bool		has_default;
} CallbackArgument;

extern char *resolve_qualified_name(Oid funcid);
extern char *resolve_signature(Oid funcid);
extern int	resolve_arguments(Oid funcid, CallbackArgument **arguments);
extern bool resolve_takes_whole(Oid funcid);
extern bool resolve_has_key(char **keys, int nkeys, const char *name);
extern bool resolve_lacks_variadic(Oid funcid, char **keys, int nkeys);
extern bool resolve_fits_exactly(Oid funcid, int nkeys);

/* ------------------------------------------------------------------------
 * resolve_errors.c
 */
pg_noreturn extern void resolve_report_no_name(const char *name);
extern const char *resolve_unusable(Oid funcid);
extern void resolve_check_kind(Oid funcid);
extern int	resolve_distance(const char *written, const char *name, int bound);
extern const char *resolve_closest_name(const char *written, char **names, int n);
pg_noreturn extern void resolve_report_arguments(Oid funcid, char **keys, int nkeys);
pg_noreturn extern void resolve_report_unknown(List *names);
pg_noreturn extern void resolve_report_none_fits(List *names);
pg_noreturn extern void resolve_report_ambiguous(List *names);

/* ------------------------------------------------------------------------
 * resolve.c
 */
extern List *resolve_name(const char *name);
extern char *resolve_qualify(const char *name);
extern Oid	resolve_callback(const char *name, char **keys, int nkeys);
extern char *resolve_target(const char *name);

/* ------------------------------------------------------------------------
 * callback_pick.c
 */
extern Jsonb *callback_pick(const char *name, Jsonb *kwargs);

/* ------------------------------------------------------------------------
 * callback_plan.c
 */
typedef enum CallbackKind
{
	CALLBACK_FUNCTION,
	CALLBACK_PROCEDURE,
	CALLBACK_EXECUTE			/* taskshed.execute */
} CallbackKind;

/* A value that is passed: which key it is under, and how to convert it. */
typedef struct CallbackParameter
{
	Oid			type;
	bool		whole;			/* it is all of kwargs */
	bool		foreign;		/* converting it runs code of other users */
	bool		has_row_type;	/* a row type is part of its type */
	TupleDesc	desc;			/* the key as the only column of a record */
	FmgrInfo	to_record;		/* jsonb_to_record, with its cache */
} CallbackParameter;

/* A callback with the keys of some kwargs, resolved and ready to be called. */
typedef struct Callback
{
	MemoryContext context;		/* holds this and all that hangs off it */
	char	   *name;			/* as asked for */
	Oid			role;
	uint64		path;			/* hash of search_path; 0 for qualified names */
	int			nkeys;
	char	  **keys;			/* of kwargs, in jsonb's order */
	char	   *kinds;			/* of their values, a letter each */
	bool		polymorphic;	/* the kinds matter */
	bool		needs_settings; /* what values mean can depend on settings */

	uint64		generation;		/* valid while this is the current one */
	uint64		row_generation; /* and, if it has to do with row types, this */
	bool		has_row_type;
	int			holders;		/* not to be freed while there are any */
	int			binding;		/* the parameter being converted, or -1 */
	CallbackKind kind;
	Oid			funcid;
	char	   *qualified;		/* name, schema-qualified and quoted */
	char	   *signature;		/* for messages */
	char	   *query;			/* the call */
	bool		is_constant;	/* a plan would hold its result */
	int			nparams;
	CallbackParameter *params;
	CachedPlanSource *plan;		/* of the call */
	int64		typical;		/* us that its runs take, smoothed; 0: unknown */
} Callback;

extern void callback_write_call(Callback *callback);
extern bool callback_plan(Callback *callback);
extern void callback_position_context(void *arg);

/* ------------------------------------------------------------------------
 * callback.c
 */
extern void callback_init(void);
extern void callback_relation_changed(Oid relid);
extern Callback *callback_prepare(const char *name, Jsonb *kwargs);
extern uint64 callback_generation(void);
extern void callback_prune(void);
extern void callback_hold(Callback *callback);
extern void callback_release(Callback *callback);
extern void callback_check_privilege(const Callback *callback, Oid role);

/* ------------------------------------------------------------------------
 * callback_bind.c
 */
extern int	callback_enter_zone(pg_tz *zone);
extern ParamListInfo callback_bind(Callback *callback, Jsonb *kwargs, pg_tz *zone, bool checking);
extern const char *callback_unbound(const Callback *callback);

/* ------------------------------------------------------------------------
 * execute.c
 */
extern char *execute_portal(Portal portal, MemoryContext result_context);
extern bool execute_log_statement(const char *text, List *statements);
extern void execute_log_duration(const char *text, bool was_logged);
extern List *execute_parse(const char *text);
extern char *execute_message(const char *text);

/* ------------------------------------------------------------------------
 * call.c
 */
extern void call_check_values(const Callback *callback, ParamListInfo params);
extern char *call_at_top_level(Callback *callback, ParamListInfo params);
extern char *call_here(Callback *callback, ParamListInfo params);

/* ------------------------------------------------------------------------
 * alias.c
 */
extern void alias_relation_changed(Oid relid);
extern char *alias_find(Oid owner, const char *name);
extern char *alias_require(Oid owner, const char *name);
extern void alias_visit_owners(void (*visit) (Oid owner, const NameData *name, void *arg), void *arg);
extern int	alias_move(Oid owner, const NameData *name, Oid new_owner, const NameData *new_name);
extern void alias_drop_owned(Oid owner);
extern void alias_set(Oid owner, const char *name, const char *target, bool replace_existing);
extern bool alias_remove(Oid owner, const char *name);

#endif							/* TASKSHED_CALLBACK_CALLBACK_H */
