/*-------------------------------------------------------------------------
 *
 * callback.c
 *		From a function or procedure and kwargs to a call.
 *
 * A callback is found by its name and the keys of its kwargs, as a call
 * name(key => value, ...) would be.  What was found is kept as a Callback:
 * what is needed to turn each value into one of the argument's type, and the
 * call as a prepared statement.  Callbacks are cached for each name, set of
 * keys, role and search_path, and found again when anything they depend on
 * may have changed.
 *
 * The conversion is jsonb_to_record's, called for each argument with that as
 * the record's only column: one mechanism for scheduling, trying and running,
 * with the meaning everybody knows from SQL, and when a value does not fit it
 * is known which.  An argument of a polymorphic type gets the type that comes
 * nearest to the JSON value, so there the kinds of the values belong to the
 * cache's key as well.
 *
 * The call is SELECT name(a => $1, ...), or CALL for a procedure.  How it is
 * made is call.c's business.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "taskshed.h"

/* Callbacks kept from one transaction to the next. */
#define CALLBACKS_KEPT	256

typedef struct CallbackEntry
{
	uint64		hash;			/* of name, role, path, keys and perhaps kinds */
	Callback   *callback;
} CallbackEntry;

static HTAB *callbacks = NULL;

/* Out of date, but perhaps still in the hands of somebody up the stack. */
static List *retired = NIL;

/* Raised whenever something in the catalogs changes that we depend on. */
static uint64 generation = 1;

/* Raised whenever the columns of a row type may have changed. */
static uint64 row_generation = 1;

static void
callback_syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

/*
 * The relcache has been told that a relation, or any of them, has changed: it
 * may be the columns of a row type.  This comes at every ANALYZE, which is not
 * to cost those callbacks anything that have to do with scalars only.
 */
void
callback_relation_changed(Oid relid)
{
	row_generation++;
}

/* Changes whenever what a callback depends on may have changed. */
uint64
callback_generation(void)
{
	return generation + row_generation;
}

static void
callback_drop(Callback *callback)
{
	if (callback->plan != NULL)
		DropCachedPlan(callback->plan);
	MemoryContextDelete(callback->context);
}

/* Takes a callback out of use; its memory stays until nobody has it. */
static void
callback_retire(Callback *callback)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	retired = lappend(retired, callback);
	MemoryContextSwitchTo(old);
}

/* Frees retired callbacks, and all if there are too many, except those held. */
static void
callback_free(bool held_too)
{
	if (callbacks != NULL && hash_get_num_entries(callbacks) > CALLBACKS_KEPT)
	{
		HASH_SEQ_STATUS scan;
		CallbackEntry *entry;

		hash_seq_init(&scan, callbacks);
		while ((entry = hash_seq_search(&scan)) != NULL)
		{
			callback_retire(entry->callback);
			hash_search(callbacks, &entry->hash, HASH_REMOVE, NULL);
		}
	}
	for (int i = list_length(retired); i-- > 0;)
	{
		Callback   *callback = list_nth(retired, i);

		if (callback->holders > 0 && !held_too)
			continue;
		retired = list_delete_nth_cell(retired, i);
		callback_drop(callback);
	}
}

/*
 * The same between transactions, or between runs, when nobody is left who
 * could hold one; whoever seems to has not come to let it go, for an error.
 */
void
callback_prune(void)
{
	callback_free(true);
}

/*
 * A callback is freed no sooner than those who hold it let it go.  They do
 * while they run code of users, which may look for any number of others.
 */
void
callback_hold(Callback *callback)
{
	callback->holders++;
}

void
callback_release(Callback *callback)
{
	Assert(callback->holders > 0);
	callback->holders--;
}

static void
callback_xact_callback(XactEvent event, void *arg)
{
	/* a worker prunes between runs: a callback of its may COMMIT */
	if (ts_my_worker == NULL &&
		(event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
		callback_prune();
}

/* Once a process. */
void
callback_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, callback_syscache_callback, (Datum) 0);
	RegisterXactCallback(callback_xact_callback, NULL);
}

/*
 * The kind of a JSON value: n(umber), s(tring), b(oolean), 0 for null, { for
 * objects.  An array has that of its elements in upper case, if they all are
 * of the same; null goes with any, and with no other is _.  Else it has [.
 */
static char
callback_kind(const JsonbValue *value)
{
	JsonbContainer *container;
	char		kind = '_';

	switch (value->type)
	{
		case jbvNull:
			return '0';
		case jbvNumeric:
			return 'n';
		case jbvString:
			return 's';
		case jbvBool:
			return 'b';
		default:
			break;
	}
	container = value->val.binary.data;
	if (!JsonContainerIsArray(container))
		return '{';
	for (uint32 i = 0; i < JsonContainerSize(container); i++)
	{
		JEntry		entry = container->children[i];
		char		other;

		if (JBE_ISNULL(entry))
			continue;
		other = JBE_ISNUMERIC(entry) ? 'N' : JBE_ISSTRING(entry) ? 'S' :
			JBE_ISBOOL(entry) ? 'B' : '[';
		if (other == '[' || (kind != '_' && kind != other))
			return '[';
		kind = other;
	}
	return kind;
}

/*
 * The keys of a JSON object in jsonb's own order, and the kinds of their values.
 * 22023 if it is none, which only a task that was written by hand can have.
 */
static int
callback_keys(Jsonb *kwargs, char ***keys, char **kinds)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	int			n = 0;

	if (!JB_ROOT_IS_OBJECT(kwargs))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kwargs must be a JSON object")));
	it = JsonbIteratorInit(&kwargs->root);
	*keys = palloc((JB_ROOT_COUNT(kwargs) + 1) * sizeof(char *));
	*kinds = palloc(JB_ROOT_COUNT(kwargs) + 1);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			(*keys)[n] = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			(*kinds)[n++] = callback_kind(&value);
	}
	(*kinds)[n] = '\0';
	return n;
}

/* The number of the key that gives an argument its value, or -1. */
static int
callback_find_key(const Callback *callback, const CallbackArgument *argument)
{
	for (int key = 0; key < callback->nkeys; key++)
	{
		if (argument->is_input && strcmp(callback->keys[key], argument->name) == 0)
			return key;
	}
	return -1;
}

/* What kind of polymorphic argument is it: those that go together agree. */
static bool
callback_is_polymorphic(Oid type, bool *compatible, bool *array)
{
	*array = (type == ANYARRAYOID || type == ANYCOMPATIBLEARRAYOID);
	*compatible = (type == ANYCOMPATIBLEOID || type == ANYCOMPATIBLENONARRAYOID ||
				   type == ANYCOMPATIBLEARRAYOID);
	return *array || *compatible || type == ANYELEMENTOID || type == ANYNONARRAYOID;
}

/*
 * The type that comes nearest to a JSON value of that kind, as an element of
 * an array if the argument is one; InvalidOid if any would do.
 */
static Oid
callback_nearest_type(char kind, bool array)
{
	if (kind == '0' || (array && kind == '_'))
		return InvalidOid;
	if (kind == (array ? 'N' : 'n'))
		return NUMERICOID;
	if (kind == (array ? 'S' : 's'))
		return TEXTOID;
	if (kind == (array ? 'B' : 'b'))
		return BOOLOID;
	return JSONBOID;
}

/*
 * The type that a value has in the call: the declared one, or for a
 * polymorphic argument one that suits the JSON value.  What says nothing, as
 * null, has that of the first of the others that it must go together with.
 */
static Oid
callback_parameter_type(Callback *callback, const CallbackArgument *arguments, int narguments,
						const CallbackArgument *argument, char kind)
{
	bool		array;
	bool		compatible;
	Oid			type;

	if (!callback_is_polymorphic(argument->type, &compatible, &array))
	{
		if (get_typtype(argument->type) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("argument \"%s\" of callback %s has type %s, which no JSON value can have",
							argument->name, callback->signature,
							format_type_be(argument->type))));
		return argument->type;
	}

	callback->polymorphic = true;
	type = callback_nearest_type(kind, array);
	for (int i = 0; !OidIsValid(type) && i < narguments; i++)
	{
		bool		other_array;
		bool		other_compatible;
		int			key = callback_find_key(callback, &arguments[i]);

		if (key >= 0 &&
			callback_is_polymorphic(arguments[i].type, &other_compatible, &other_array) &&
			other_compatible == compatible)
			type = callback_nearest_type(callback->kinds[key], other_array);
	}
	if (!OidIsValid(type))
		type = TEXTOID;
	return array ? get_array_type(type) : type;
}

/*
 * Finds out about a parameter's type, and all those that it is made of.
 *
 * Would making a value run code of another user, as in a domain's constraint?
 * Superusers' code is trusted, here as everywhere.  And is there a row type
 * anywhere in it, whose columns can change while all the types stay the same?
 */
static void
callback_examine_type(CallbackParameter *param, Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple;
	char		typtype;
	Oid			owner;
	Oid			relid;
	Oid			base;

	check_stack_depth();
	if (OidIsValid(element))
	{
		callback_examine_type(param, element);
		return;
	}

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	typtype = ((Form_pg_type) GETSTRUCT(tuple))->typtype;
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	relid = ((Form_pg_type) GETSTRUCT(tuple))->typrelid;
	base = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
	ReleaseSysCache(tuple);

	if (typtype == TYPTYPE_ENUM)
		return;
	if (owner != GetUserId() && !superuser_arg(owner))
		param->foreign = true;
	if (typtype == TYPTYPE_COMPOSITE)
	{
		Relation	rel = relation_open(relid, AccessShareLock);
		TupleDesc	desc = RelationGetDescr(rel);

		param->has_row_type = true;
		for (int i = 0; i < desc->natts; i++)
		{
			if (!TupleDescAttr(desc, i)->attisdropped)
				callback_examine_type(param, TupleDescAttr(desc, i)->atttypid);
		}
		relation_close(rel, AccessShareLock);
	}
	else if (typtype == TYPTYPE_DOMAIN)
		callback_examine_type(param, base); /* itself perhaps a domain */
	else if (typtype == TYPTYPE_RANGE)
		callback_examine_type(param, get_range_subtype(type));
	else if (typtype == TYPTYPE_MULTIRANGE)
		callback_examine_type(param, get_multirange_range(type));
}

/* Does a text mean the same value of this type whatever has been set? */
static bool
callback_type_is_plain(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case INT4ARRAYOID:
		case INT8ARRAYOID:
		case NUMERICARRAYOID:
		case TEXTARRAYOID:
			return true;
		default:
			return get_typtype(type) == TYPTYPE_ENUM;
	}
}

/* Adds a value to be passed; returns its number in the call. */
static int
callback_add_parameter(Callback *callback, const char *key, Oid type, bool whole)
{
	CallbackParameter *param = &callback->params[callback->nparams];

	param->type = type;
	param->whole = whole;
	callback_examine_type(param, type);
	callback->has_row_type = callback->has_row_type || param->has_row_type;
	if (!whole && !callback_type_is_plain(type))
		callback->needs_settings = true;
	if (!whole)
	{
		param->desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(param->desc, 1, key, type, -1, 0);
		fmgr_info_cxt(F_JSONB_TO_RECORD, &param->to_record, callback->context);
	}
	return ++callback->nparams;
}

/*
 * Writes the call, in the order of the declared arguments: VARIADIC is last.
 *
 * It has the name that the callback was looked up by, not the one it turned
 * out to have: then what somebody renames meanwhile is not there, as it would
 * not be for any other statement.
 */
static void
callback_write_call(Callback *callback)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(callback->funcid, &arguments);
	bool		whole = resolve_takes_whole(callback->funcid);
	const char *separator = "";
	int			npositional = 0;
	StringInfoData query;

	/*
	 * A CALL has the results among its arguments, and those may be without a
	 * name, or have that of an input.  All up to them go by their place then;
	 * none has a default that it could have been left to.
	 */
	for (int i = 0; i < n; i++)
	{
		if (arguments[i].is_result && callback->kind != CALLBACK_FUNCTION)
			npositional = i + 1;
	}

	initStringInfo(&query);
	appendStringInfo(&query, "%s %s(", callback->kind == CALLBACK_FUNCTION ? "SELECT" : "CALL",
					 NameListToQuotedString(resolve_name(callback->name)));
	callback->params = palloc0((n + 1) * sizeof(CallbackParameter));
	for (int i = 0; i < n; i++)
	{
		CallbackArgument *argument = &arguments[i];
		int			key;

		if (i < npositional && !argument->is_input)
		{
			appendStringInfo(&query, "%sNULL", separator);
			separator = ", ";
			continue;
		}
		if (!argument->is_input || argument->name[0] == '\0')
			continue;
		key = callback_find_key(callback, argument);
		if (key < 0 && !whole)
			continue;
		appendStringInfo(&query, "%s%s%s%s$%d", separator,
						 argument->is_variadic ? "VARIADIC " : "",
						 i < npositional ? "" : quote_identifier(argument->name),
						 i < npositional ? "" : " => ",
						 callback_add_parameter(callback, argument->name,
												whole ? argument->type :
												callback_parameter_type(callback, arguments, n, argument,
																		callback->kinds[key]),
												whole));
		separator = ", ";
	}
	appendStringInfoChar(&query, ')');
	callback->query = query.data;
}

/*
 * For the time in which a text is parsed that the user's statement does not
 * contain: has the position of an error refer to that text.  arg is the text.
 */
void
callback_position_context(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((char *) arg);
	}
}

/* Says that the values do not go together as polymorphic arguments: 42883. */
static void
callback_report_types(const Callback *callback)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < callback->nparams; i++)
		appendStringInfo(&list, "%s%s %s", i > 0 ? ", " : "",
						 NameStr(TupleDescAttr(callback->params[i].desc, 0)->attname),
						 format_type_be(callback->params[i].type));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("callback %s cannot be called with values of these types", callback->signature),
			 errdetail("The arguments are %s.", list.data)));
}

/* The function or procedure that a call is one of, according to the parser. */
static Oid
callback_analyzed_funcid(const Query *query)
{
	Node	   *call;

	if (query->commandType == CMD_UTILITY)
		call = (Node *) castNode(CallStmt, query->utilityStmt)->funcexpr;
	else
		call = (Node *) linitial_node(TargetEntry, query->targetList)->expr;
	return IsA(call, FuncExpr) ? ((FuncExpr *) call)->funcid : InvalidOid;
}

/*
 * Prepares the call.  That finds what remains to be found wrong with it, as
 * with polymorphic types that do not go together.  False if it would not call
 * what was found before, which has to be looked for again then.
 */
static bool
callback_plan(Callback *callback)
{
	RawStmt    *parsed = linitial_node(RawStmt, pg_parse_query(callback->query));
	CachedPlanSource *plan = CreateCachedPlan(parsed, callback->query,
											  CreateCommandTag(parsed->stmt));
	Oid		   *types = palloc((callback->nparams + 1) * sizeof(Oid));
	List	   *queries = NIL;
	MemoryContext old = CurrentMemoryContext;
	ErrorContextCallback context;

	for (int i = 0; i < callback->nparams; i++)
		types[i] = callback->params[i].type;

	context.callback = callback_position_context;
	context.arg = callback->query;
	context.previous = error_context_stack;
	error_context_stack = &context;
	PG_TRY();
	{
		queries = pg_analyze_and_rewrite_fixedparams(parsed, callback->query, types,
													 callback->nparams, NULL);
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		if (sqlstate != ERRCODE_AMBIGUOUS_FUNCTION &&
			sqlstate != ERRCODE_UNDEFINED_FUNCTION &&
			sqlstate != ERRCODE_UNDEFINED_SCHEMA &&
			(sqlstate != ERRCODE_DATATYPE_MISMATCH || !callback->polymorphic))
			PG_RE_THROW();
		MemoryContextSwitchTo(old);
		FlushErrorState();
		error_context_stack = context.previous;
		if (sqlstate == ERRCODE_AMBIGUOUS_FUNCTION)
			resolve_report_ambiguous(resolve_name(callback->name));
		if (sqlstate != ERRCODE_UNDEFINED_SCHEMA && callback->polymorphic)
			callback_report_types(callback);
		/* it has gone since it was found */
		resolve_report_unknown(resolve_name(callback->name));
	}
	PG_END_TRY();
	error_context_stack = context.previous;

	if (callback_analyzed_funcid(linitial_node(Query, queries)) != callback->funcid)
	{
		/* another has come to that name since it was found */
		if (callback->generation != generation)
			return false;

		/*
		 * the parser chooses by types, and polymorphic ones are a guess of
		 * ours
		 */
		resolve_report_ambiguous(resolve_name(callback->name));
	}
	CompleteCachedPlan(plan, queries, NULL, types, callback->nparams, NULL, NULL,
					   CURSOR_OPT_GENERIC_PLAN, false);
	SaveCachedPlan(plan);
	callback->plan = plan;
	return true;
}

static bool
callback_is_execute(Oid funcid)
{
	return get_func_prokind(funcid) == PROKIND_PROCEDURE &&
		strcmp(get_func_name(funcid), "execute") == 0 &&
		get_func_namespace(funcid) == get_namespace_oid("taskshed", true);
}

/*
 * Fills in what is kept of a callback, with what is known of the catalogs from
 * the start: what changes meanwhile makes it stale.  False if that kept the
 * parser from finding the same function.
 */
static bool
callback_build(Callback *callback)
{
	MemoryContext old = CurrentMemoryContext;

	callback->generation = generation;
	callback->row_generation = row_generation;
	callback->polymorphic = callback->has_row_type = callback->needs_settings = false;
	callback->nparams = 0;
	callback->funcid = resolve_callback(callback->name, callback->keys, callback->nkeys);
	callback->kind = callback_is_execute(callback->funcid) ? CALLBACK_EXECUTE :
		get_func_prokind(callback->funcid) == PROKIND_PROCEDURE ? CALLBACK_PROCEDURE :
		CALLBACK_FUNCTION;
	MemoryContextSwitchTo(callback->context);
	callback->qualified = resolve_qualified_name(callback->funcid);
	callback->signature = resolve_signature(callback->funcid);
	callback_write_call(callback);
	callback->is_constant = (callback->kind == CALLBACK_FUNCTION && callback->nparams == 0 &&
							 func_volatile(callback->funcid) == PROVOLATILE_IMMUTABLE);
	MemoryContextSwitchTo(old);
	return callback_plan(callback);
}

static bool
callback_matches(const Callback *callback, const char *name, Oid role, uint64 path,
				 char **keys, int nkeys, const char *kinds)
{
	if (callback->generation != generation || callback->role != role ||
		(callback->has_row_type && callback->row_generation != row_generation) ||
		callback->path != path || callback->nkeys != nkeys ||
		strcmp(callback->name, name) != 0)
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		if (strcmp(callback->keys[i], keys[i]) != 0)
			return false;
	}
	return !callback->polymorphic || strcmp(callback->kinds, kinds) == 0;
}

/*
 * Finds the callback of a name that takes the keys of kwargs, for the current
 * user and, if the name is not qualified, the current search_path.  Valid
 * until the next is looked for, or as long as it is held.
 *
 * Errors: 42883 no such callback or arguments, 42725 more than one, 42809 not
 * to be called directly, 42501 no USAGE on the schema.
 */
Callback *
callback_prepare(const char *name, Jsonb *kwargs)
{
	Oid			role = GetUserId();
	char	  **keys;
	char	   *kinds;
	int			nkeys = callback_keys(kwargs, &keys, &kinds);
	uint64		path = 0;
	uint64		hash;
	CallbackEntry *entry;
	Callback   *callback;
	MemoryContext context;
	MemoryContext old;
	bool		found;

	if (list_length(resolve_name(name)) == 1)
	{
		List	   *schemas = fetch_search_path(true);
		ListCell   *lc;

		path = 1;
		foreach(lc, schemas)
			path = hash_combine64(path, lfirst_oid(lc));
	}
	hash = hash_combine64(path, role);
	hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) name, strlen(name), 0));
	for (int i = 0; i < nkeys; i++)
		hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) keys[i],
														strlen(keys[i]), i + 1));

	if (callbacks == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(CallbackEntry)};

		callbacks = hash_create("taskshed callbacks", CALLBACKS_KEPT, &ctl,
								HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(callbacks, &hash, HASH_FIND, NULL);
	if (entry != NULL && callback_matches(entry->callback, name, role, path, keys, nkeys, kinds))
		return entry->callback;

	callback_free(false);
	context = AllocSetContextCreate(CurrentMemoryContext, "taskshed callback",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	callback = palloc0(sizeof(Callback));
	callback->context = context;
	callback->name = pstrdup(name);
	callback->role = role;
	callback->path = path;
	callback->nkeys = nkeys;
	callback->keys = palloc((nkeys + 1) * sizeof(char *));
	for (int i = 0; i < nkeys; i++)
		callback->keys[i] = pstrdup(keys[i]);
	callback->kinds = pstrdup(kinds);
	MemoryContextSwitchTo(old);
	while (!callback_build(callback))
		CHECK_FOR_INTERRUPTS();

	entry = hash_search(callbacks, &hash, HASH_ENTER, &found);
	if (found)
		callback_retire(entry->callback);
	entry->callback = callback;
	MemoryContextSetParent(context, TopMemoryContext);
	return callback;
}

/* May role call it?  42501 if not. */
void
callback_check_privilege(const Callback *callback, Oid role)
{
	Oid			schema = get_func_namespace(callback->funcid);

	if (!compat_may_use_schema(schema, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", get_namespace_name(schema)),
				 errdetail("Role \"%s\" needs USAGE on it to call %s.",
						   GetUserNameFromId(role, false), callback->qualified)));
	if (!compat_may_execute(callback->funcid, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", callback->qualified),
				 errdetail("Role \"%s\" needs EXECUTE on it.",
						   GetUserNameFromId(role, false))));
}

/*
 * After callback_bind has failed: says which argument could not be converted,
 * without its value; NULL if the error was not about that.
 */
const char *
callback_unbound(const Callback *callback)
{
	if (callback->binding < 0)
		return NULL;
	return psprintf("argument \"%s\" of callback %s cannot have the value given in kwargs",
					NameStr(TupleDescAttr(callback->params[callback->binding].desc, 0)->attname),
					callback->signature);
}

static void
callback_bind_context(void *arg)
{
	const Callback *callback = arg;
	const CallbackParameter *param;

	if (callback->binding < 0)
		return;
	param = &callback->params[callback->binding];
	errcontext("argument \"%s\" (%s) of callback %s",
			   NameStr(TupleDescAttr(param->desc, 0)->attname),
			   format_type_be(param->type), callback->signature);
}

static void
callback_set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/*
 * A timestamp without a zone, or a date like 01/02/2100, is to mean the same
 * to all who convert it: whoever schedules a task, tries it, and runs it.  So
 * it is read with the task's time zone and the default styles.  Returns the
 * level of settings to go back to, or 0 if they are as they have to be.
 */
static int
callback_enter_settings(const Callback *callback, pg_tz *zone)
{
	int			level;

	if (!callback->needs_settings ||
		(zone == session_timezone && DateStyle == USE_ISO_DATES &&
		 DateOrder == DATEORDER_MDY && IntervalStyle == INTSTYLE_POSTGRES))
		return 0;
	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the task's time zone is not known to this server")));
	level = NewGUCNestLevel();
	if (zone != session_timezone)
		callback_set("TimeZone", pg_get_timezone_name(zone));
	if (DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_MDY)
		callback_set("DateStyle", "ISO, MDY");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		callback_set("IntervalStyle", "postgres");
	return level;
}

/* Converts the value of one argument. */
static Datum
callback_convert(CallbackParameter *param, Jsonb *kwargs, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo = {.type = T_ReturnSetInfo,.expectedDesc = param->desc};
	FmgrInfo	afresh;
	FmgrInfo   *to_record = &param->to_record;
	HeapTupleData tuple;
	Datum		value;

	/*
	 * What jsonb_to_record has once seen of a row type inside another type,
	 * it believes for ever.
	 */
	if (param->has_row_type)
	{
		fmgr_info(F_JSONB_TO_RECORD, &afresh);
		to_record = &afresh;
	}
	InitFunctionCallInfoData(*fcinfo, to_record, 1, InvalidOid, NULL, (Node *) &rsinfo);
	fcinfo->args[0].value = JsonbPGetDatum(kwargs);
	fcinfo->args[0].isnull = false;
	tuple.t_data = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, param->desc, &value, isnull);
	return value;
}

/* Converts what is in kwargs; of others' types only if it is not for checking. */
static void
callback_convert_all(Callback *callback, Jsonb *kwargs, bool checking, ParamListInfo params)
{
	for (int i = 0; i < callback->nparams; i++)
	{
		CallbackParameter *param = &callback->params[i];
		ParamExternData *value = &params->params[i];

		value->pflags = PARAM_FLAG_CONST;
		value->ptype = param->type;
		if (checking && param->foreign)
		{
			value->value = (Datum) 0;
			value->isnull = true;
			continue;
		}
		if (param->whole)
		{
			value->value = JsonbPGetDatum(kwargs);
			value->isnull = false;
			continue;
		}
		callback->binding = i;
		value->value = callback_convert(param, kwargs, &value->isnull);
		callback->binding = -1;
	}
}

/*
 * Converts kwargs into the values of the arguments, in the current memory
 * context.  The errors are those of the types' input functions; their context
 * names the argument.  zone is the task's.
 *
 * Somebody who only schedules a call does not mean to run the code that makes
 * values of the types of others.  With checking such values are left NULL.
 */
ParamListInfo
callback_bind(Callback *callback, Jsonb *kwargs, pg_tz *zone, bool checking)
{
	ErrorContextCallback context;
	ParamListInfo params;
	volatile int level;

	callback->binding = -1;
	if (callback->nparams == 0)
		return NULL;

	params = makeParamList(callback->nparams);
	level = callback_enter_settings(callback, zone);
	context.callback = callback_bind_context;
	context.arg = callback;
	context.previous = error_context_stack;
	error_context_stack = &context;
	callback_hold(callback);
	PG_TRY();
	{
		callback_convert_all(callback, kwargs, checking, params);
	}
	PG_FINALLY();
	{
		callback_release(callback);
	}
	PG_END_TRY();
	error_context_stack = context.previous;
	if (level != 0)
		AtEOXact_GUC(true, level);
	return params;
}
